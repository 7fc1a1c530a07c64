"""How many edges are worked on at a time."""

from __future__ import annotations

import torch

CPU_VALUES = 1 << 19
"""Values that are held at a time on a CPU: 2 MiB in float32. Of 0.5 to 8 MiB the fastest on an AMD
Zen 5 core with 1 MiB of its own and a share of 32 MiB (a step of EquiformerV2 with 3 layers: 1.16,
1.06, 1.02, 1.04, 1.09 s)."""

OTHER_VALUES = 1 << 28
"""On other devices: as many as there are, up to 1 GiB in float32."""


def blocks(edges: int, values: int, device: torch.device) -> list[slice]:
    """Ranges of edges (or atoms) with ``values`` values each."""
    limit = CPU_VALUES if device.type == "cpu" else OTHER_VALUES
    step = max(1, limit // max(1, values))
    return [slice(start, min(start + step, edges)) for start in range(0, edges, step)]
