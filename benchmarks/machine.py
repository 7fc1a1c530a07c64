"""On what it was measured."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware, versions, date and commit; no name of a host and no path."""
    found = {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "device": str(device),
        "mkl": _mkl(),
        "onednn": bool(torch.backends.mkldnn.is_available()),
        "allocator": {
            name: value
            for name, value in os.environ.items()
            if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"
        }
        or "the system's, without settings",
    }
    for name in ("torch", "fairchem-core", "numpy", "torch-scatter", "torch-geometric", "e3nn"):
        with suppress(importlib.metadata.PackageNotFoundError):  # torch-scatter is not needed
            found[name] = importlib.metadata.version(name)
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        found["gpu"] = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
        found["cuda"] = torch.version.cuda
        found["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return found


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or "unknown"


def _mkl() -> str:
    found = re.search(r"(oneAPI Math Kernel Library|MKL)[^\n]*?Version ([\d.]+)[^\n]*",
                      torch.__config__.show())  # fmt: skip
    return found[2] if found else "no"


def _commit() -> str:
    """Of the working tree; ``+`` says that there were changes."""
    root = Path(__file__).resolve().parent
    try:
        commit, changes = (
            subprocess.run(
                ["git", *words], cwd=root, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changes else "")
