"""The Triton kernels of the activation: run by the interpreter, which is switched on when Triton is
imported, hence processes of their own; and compiled for GPUs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dens_ocp.models.fast.operations import sphere_kernel
from tests.runs import environment

pytest.importorskip("triton", reason="comes with CUDA builds of torch")


def output(program: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(program))],
        env=environment(**variables),
        text=True,
        capture_output=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_values_and_gradients():
    assert "as PyTorch's" in output("kernels_interpreted.py", TRITON_INTERPRET="1")


def test_a_kernel_that_is_wrong_or_fails_is_not_used(monkeypatch, caplog):
    cpu = torch.device("cpu")
    monkeypatch.setattr(sphere_kernel, "fused_silu", lambda *x: 1.1 * sphere_kernel.plain_silu(*x))
    assert not sphere_kernel.agrees.__wrapped__(cpu, torch.float32)
    assert "its error is" in caplog.text

    def fails(*inputs):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(sphere_kernel, "fused_silu", fails)
    assert not sphere_kernel.agrees.__wrapped__(cpu, torch.float32)
    assert "no compiler" in caplog.text
    assert not sphere_kernel.usable(cpu, torch.float32)


def test_compiles_for_gpus_and_fits_their_shared_memory(tmp_path):
    assert "compiled" in output("kernels_compiled.py", TRITON_CACHE_DIR=str(tmp_path))
