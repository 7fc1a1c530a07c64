"""How many edges are worked on at a time."""

from __future__ import annotations

import torch

CPU_VALUES = 1 << 18
"""Values that are held at a time on a CPU: 1 MiB in float32, which fits its cache."""

OTHER_VALUES = 1 << 28
"""On other devices: as many as there are, up to 1 GiB in float32."""


def blocks(edges: int, values: int, device: torch.device) -> list[slice]:
    """Ranges of edges (or atoms) with ``values`` values each."""
    limit = CPU_VALUES if device.type == "cpu" else OTHER_VALUES
    step = max(1, limit // max(1, values))
    return [slice(start, min(start + step, edges)) for start in range(0, edges, step)]
