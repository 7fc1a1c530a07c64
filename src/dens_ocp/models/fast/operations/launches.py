"""Where the number of operations counts, where their size.

On a GPU each operation costs the host about 30 microseconds to launch (measured with PyTorch's
profiler on an H100: 8718 launches in a step of EquiformerV2 with 12 layers and 148 atoms, 257 ms,
of which the device works 164 ms). The parts of :mod:`dens_ocp.models.fast` therefore have two
forms: on a CPU they skip what is zero, piece by piece, and stay in the cache; elsewhere they take
few and large operations, zeros and all.
"""

from __future__ import annotations

from typing import Any

import torch

FORCED: bool | None = None
"""Tests and benchmarks set it: the form for every device. None: by device."""

CPU_VALUES = 1 << 19
"""Values that are held at a time on a CPU: 2 MiB in float32. Of 0.5 to 8 MiB the fastest on an AMD
Zen 5 core with 1 MiB of its own and a share of 32 MiB (a step of EquiformerV2 with 3 layers: 1.16,
1.06, 1.02, 1.04, 1.09 s)."""

OTHER_VALUES = 1 << 28
"""On other devices: as many as there are, up to 1 GiB in float32."""


def few_launches(device: torch.device) -> bool:
    """Whether the form with few, large operations is taken for tensors on ``device``."""
    return device.type != "cpu" if FORCED is None else FORCED


def blocks(edges: int, values: int, device: torch.device) -> list[slice]:
    """Ranges of edges (or atoms) with ``values`` values each."""
    limit = CPU_VALUES if device.type == "cpu" else OTHER_VALUES
    step = max(1, limit // max(1, values))
    return [slice(start, min(start + step, edges)) for start in range(0, edges, step)]


def working_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype of products with ``x``: autocast's where it is on, else that of ``x``."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def applied(
    function: type[torch.autograd.Function], x: torch.Tensor, *others: torch.Tensor, extra: Any = ()
) -> Any:
    """What autocast does for an operation of torch: ``function`` of tensors in the
    :func:`working_dtype` of the first one, and nothing in it is cast again.

    Args:
        function: takes ``x``, ``others``, ``extra``.
        x, others: floating-point tensors.
        extra: all else, handed on as it is.
    """
    dtype = working_dtype(x)
    with torch.autocast(x.device.type, enabled=False):
        return function.apply(x.to(dtype), *(each.to(dtype) for each in others), *extra)
