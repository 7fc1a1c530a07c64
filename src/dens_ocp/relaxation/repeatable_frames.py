"""Edge frames that repeat: the same structures, the same numbers, in every run.

EquiformerV2 and eSCN turn each edge into a frame with a random angle (``torch.rand_like`` in
``init_edge_rot_mat``), in every forward. Outputs move with it, by rounding or, where orders and
grids are coarse, by more (docs/inference.md), so a run that was restarted would differ from one
that was not, and two calls of a calculator from each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from dens_ocp.data.records.record_ids import system_ids


def seed_of(seed: int, batch: Any) -> int:
    """A number of 63 bits from a run's seed and the ids (``sid``) of a batch, in their order."""
    text = f"{seed}:{','.join(system_ids(batch))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class FromGeometry(TorchFunctionMode):
    """Inside, the random vectors of edge frames are one fixed vector for every edge.

    fairchem's function makes a frame of it and the edge, so the frame depends on the direction of
    the edge alone: not on its number, on other edges, or on the call. It takes the one of three
    turned vectors that is least aligned with the edge; with these numbers none of the directions
    in which crystals are usually set up lies between two of them.
    """

    vector = (0.01, 0.55, 0.29)  # fairchem subtracts 0.5

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is torch.rand_like and args[0].dim() == 2 and args[0].shape[1] == 3:
            return args[0].new_tensor(self.vector).repeat(len(args[0]), 1)
        return func(*args, **(kwargs or {}))


@contextmanager
def repeatable(seed: int, batch: Any, device: torch.device) -> Iterator[None]:
    """The frames of a batch are the same in every call; torch's generators go on as before.

    A batch with ``sid`` draws from :func:`seed_of`. One without (``OCPCalculator``) has frames
    :class:`FromGeometry`: in molecular dynamics and relaxations the list of neighbours changes, and
    with it the numbers that each edge would draw.
    """
    if "sid" not in batch:
        with FromGeometry():
            yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(seed, batch))
        yield
