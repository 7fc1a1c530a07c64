"""Random numbers of a training step: a function of (seed, rank, step), and of nothing before it.

EquiformerV2 and eSCN draw a random frame for every edge in every forward, and dropout and drop
path draw too, all from global generators. A resumed run repeats the uninterrupted one only if these
stand where they stood. Their states are not saved but set anew at each step, because

- a state would be needed of each rank, and rank 0 writes the checkpoint: it would have to gather
  them, and a run that resumes with another number of ranks would have no use for them;
- a state goes astray with everything else that draws: a validation that was done before the kill
  and not again after it, the seed that a data loader draws at the start of an epoch;
- seeding needs nothing in the checkpoint, so it holds for checkpoints of stock fairchem as well.

Ranks draw different numbers (fairchem seeds all alike, so dropout repeats from rank to rank). That
includes the ranks of a graph-parallel group: they hold different atoms and edges of the same
structures, and frames and dropout belong to an edge or an atom. Only drop path decides for a whole
structure: see :func:`drop_paths_alike`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from fairchem.core.models.equiformer_v2.drop import GraphDropPath

# corruption draws from (seed, rank, step); another last word is another stream
_FORWARD, _DROP_PATH = 1, 2


def _words(*entropy: int) -> list[int]:
    return [int(word) for word in np.random.SeedSequence(entropy).generate_state(2)]


def seed_step(seed: int, rank: int, step: int) -> None:
    """Start Python's, NumPy's and torch's generators (CPU and GPU) for the forward of a step.

    Args:
        seed: seed of the run, not negative. rank: of all ranks. step: training step.
    """
    high, low = _words(seed, rank, step, _FORWARD)
    random.seed(high << 32 | low)
    np.random.seed(low)
    torch.manual_seed(high << 31 ^ low)


def drop_paths_alike(
    model: torch.nn.Module, step: Callable[[], tuple[int, int, int]], device: torch.device
) -> None:
    """From now on all ranks of a graph-parallel group drop the same paths of the same structures.

    In fairchem each rank of a group draws for its own atoms, so a structure loses a path for a part
    of its atoms only.

    Args:
        model: the model, on all ranks of the group alike.
        step: gives seed, group (data-parallel rank) and training step of a forward.
        device: whose generator drop path draws from.
    """
    devices = [device] if device.type == "cuda" else []

    def seeded(forward: Callable, index: int) -> Callable:
        calls = 0

        def draw(x: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            # a block calls its module twice; activation checkpointing repeats whole blocks
            half, calls = calls % 2, calls + 1
            with torch.random.fork_rng(devices):
                high, low = _words(*step(), _DROP_PATH, index, half)
                torch.manual_seed(high << 31 ^ low)
                return forward(x, batch)

        return draw

    for index, module in enumerate(model.modules()):
        if isinstance(module, GraphDropPath):
            module.forward = seeded(module.forward, index)
