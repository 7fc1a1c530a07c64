"""GPUs: driver, torch, and whether the PyG extensions were built for them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding

_GIB = 2**30


def driver() -> list[str]:
    """``nvidia-smi``'s lines, one for each GPU: name, driver version; empty without a driver."""
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def check_torch_device() -> Iterator[Finding]:
    """What torch can compute on; torch has been seen to be importable."""
    import torch

    seen = driver()
    built = torch.version.cuda
    if torch.cuda.is_available():
        known = torch.cuda.get_arch_list()
        for index in range(torch.cuda.device_count()):
            each = torch.cuda.get_device_properties(index)
            text = (
                f"{each.name}, {each.total_memory / _GIB:.0f} GiB, compute capability "
                f"{each.major}.{each.minor}, CUDA {built} of torch"
            )
            if index < len(seen):
                text += f", driver {seen[index].rpartition(',')[2].strip()}"
            if any(arch[:4] == f"sm_{each.major}" for arch in known):
                yield Finding(OK, f"GPU {index}", text)
            else:
                yield Finding(
                    PROBLEM,
                    f"GPU {index}",
                    f"{text}: torch is built for {', '.join(known)} only",
                    "install torch 2.4 built for this GPU (make distclean; make setup "
                    "TORCH_SPEC=... PYG_WHEELS=...)",
                )
    elif seen and built is None:
        yield Finding(
            PROBLEM,
            "GPU",
            f"the driver sees {seen[0]}, but torch {torch.__version__} is built for CPUs",
            "make distclean && make setup PYG_WHEELS=$PYG_WHEELS (README, Two commands)",
        )
    elif seen:
        yield Finding(
            PROBLEM,
            "GPU",
            f"the driver sees {seen[0]}, but torch with CUDA {built} cannot use it: "
            "CUDA_VISIBLE_DEVICES hides it, or the driver is too old",
            "env | grep CUDA_VISIBLE_DEVICES; nvidia-smi (its CUDA version has to be "
            f"{built} or newer)",
        )
    else:
        cuda = f"built for CUDA {built}" if built else "built for CPUs"
        yield Finding(WARNING, "GPU", f"none; torch {torch.__version__} ({cuda}) runs with --cpu")


def check_extensions() -> Iterator[Finding]:
    """CUDA builds of torch-scatter and torch-sparse where there is CUDA; both were imported."""
    import torch
    import torch_scatter  # noqa: F401 (its operators)
    import torch_sparse  # noqa: F401

    for name in ("torch_scatter", "torch_sparse"):
        version = int(getattr(torch.ops, name).cuda_version())
        yield judged_extension(name.replace("_", "-"), version, torch.cuda.is_available())


def judged_extension(name: str, cuda_version: int, has_gpu: bool) -> Finding:
    """Finding on one extension; ``cuda_version`` is -1 for a CPU build, else 12010 for 12.1."""
    if cuda_version < 0 and has_gpu:
        return Finding(
            PROBLEM,
            name,
            "built without CUDA, and this machine has a GPU: training on it fails",
            "python -m pip install --force-reinstall --no-deps --only-binary :all: "
            "-f $PYG_WHEELS torch-scatter torch-sparse (README, Install with pip)",
        )
    built = (
        "for CPUs"
        if cuda_version < 0
        else f"for CUDA {cuda_version // 1000}." + str(cuda_version % 1000 // 10)
    )
    return Finding(OK, name, f"built {built}" + ("" if has_gpu else " (no GPU here)"))
