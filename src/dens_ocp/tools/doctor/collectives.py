"""Do processes of this machine reach each other? A tiny all-reduce."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from dens_ocp.tools.doctor.finding import OK, PROBLEM, Finding

# a program, not a module: a module of this package would import torch-scatter and fairchem too
_PROGRAM = """
import datetime, sys, torch
import torch.distributed as dist
backend, rank, world, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
if backend == "nccl":
    torch.cuda.set_device(rank)
dist.init_process_group(backend, init_method="file://" + file, rank=rank, world_size=world,
                        timeout=datetime.timedelta(seconds=60))
value = torch.full((1024,), rank + 1.0, device=device)
dist.all_reduce(value)
dist.barrier()
assert bool((value == world * (world + 1) / 2).all()), "wrong sum: " + str(value[0].item())
print("sum is right", flush=True)
dist.destroy_process_group()
"""


def all_reduce(backend: str, world: int, timeout: float = 120.0) -> str:
    """Sum a vector over ``world`` processes of this machine.

    Returns:
        "" if each of them has the right sum, else why not.
    """
    with tempfile.TemporaryDirectory() as folder:
        ranks = [
            subprocess.Popen(
                [
                    sys.executable,
                    "-W",
                    "ignore",
                    "-c",
                    _PROGRAM,
                    backend,
                    str(rank),
                    str(world),
                    os.path.join(folder, "rendezvous"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            for rank in range(world)
        ]
        try:
            for rank in ranks:
                output, errors = rank.communicate(timeout=timeout)
                if "sum is right" not in output:
                    last = errors.strip().splitlines()[-1:] or [f"exit code {rank.returncode}"]
                    return last[0]
        except subprocess.TimeoutExpired:
            return f"no answer within {timeout:.0f} s"
        finally:
            for rank in ranks:
                if rank.poll() is None:
                    rank.kill()
                    rank.communicate()
    return ""


def check_collectives() -> Iterator[Finding]:
    """gloo with 2 processes; NCCL with one for each GPU, where there are two or more."""
    import torch

    error = all_reduce("gloo", 2)
    if error:
        yield Finding(
            PROBLEM, "gloo", f"all-reduce over 2 processes: {error}", "export GLOO_SOCKET_IFNAME=lo"
        )
    else:
        yield Finding(OK, "gloo", "all-reduce over 2 processes of this machine")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not torch.distributed.is_nccl_available():
        status = PROBLEM if gpus > 1 else OK
        fix = "install torch with CUDA (README, Two commands)" if gpus > 1 else ""
        yield Finding(status, "NCCL", "not part of this torch", fix)
        return
    version = ".".join(map(str, torch.cuda.nccl.version()))
    if gpus < 2:
        yield Finding(OK, "NCCL", f"{version}; not tried, that needs 2 GPUs (here: {gpus})")
        return
    error = all_reduce("nccl", gpus)
    if error:
        yield Finding(
            PROBLEM,
            "NCCL",
            f"{version}: all-reduce over {gpus} GPUs: {error}",
            "NCCL_DEBUG=INFO dens-ocp doctor; if peer access is what fails: NCCL_P2P_DISABLE=1",
        )
    else:
        yield Finding(OK, "NCCL", f"{version}: all-reduce over {gpus} GPUs")
