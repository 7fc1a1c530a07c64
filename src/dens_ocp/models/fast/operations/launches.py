"""Where the number of operations counts, not their size.

On a GPU each operation costs the host about 30 microseconds to launch (measured with PyTorch's
profiler on an H100: 8718 launches in a step of EquiformerV2 with 12 layers and 148 atoms, 257 ms,
of which the device works 164 ms). The parts of :mod:`dens_ocp.models.fast` therefore have two
forms: on a CPU they skip what is zero, piece by piece, and stay in the cache; elsewhere they take
few and large operations, zeros and all.
"""

from __future__ import annotations

import torch

FORCED: bool | None = None
"""Tests and benchmarks set it: the form for every device. None: by device."""


def few_launches(device: torch.device) -> bool:
    """Whether the form with few, large operations is taken for tensors on ``device``."""
    return device.type != "cpu" if FORCED is None else FORCED
