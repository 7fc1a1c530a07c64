"""Random numbers of a training step."""

import random

import numpy as np
import torch
from fairchem.core.models.equiformer_v2.drop import GraphDropPath

from dens_ocp.dens.corruption import step_generator
from dens_ocp.training.step_randomness import drop_paths_alike, seed_step


def drawn(seed: int, rank: int, step: int) -> tuple[float, float, float]:
    seed_step(seed, rank, step)
    return random.random(), float(np.random.rand()), float(torch.rand(1, dtype=torch.float64))


def test_a_function_of_seed_rank_and_step():
    first = drawn(0, 1, 7)
    random.random(), np.random.rand(3), torch.rand(5)
    assert drawn(0, 1, 7) == first
    others = [drawn(1, 1, 7), drawn(0, 0, 7), drawn(0, 1, 8), drawn(0, 7, 1)]
    for number in range(3):
        assert len({first[number], *(other[number] for other in others)}) == 5


def test_not_the_stream_of_the_corruption():
    seed_step(0, 1, 7)
    assert not torch.equal(torch.rand(4), torch.rand(4, generator=step_generator(0, 1, 7)))


def blocks() -> torch.nn.Module:
    return torch.nn.ModuleList([GraphDropPath(0.5) for _ in range(3)]).train()


def test_drop_paths_of_a_graph_parallel_group():
    """Two ranks hold parts of 40 structures, and stand elsewhere in their generators. Each block
    calls its module twice; a third and a fourth call are the block recomputed."""
    step = [0, 2, 5]
    ranks = [blocks(), blocks()]
    parts = [torch.arange(40).repeat_interleave(2), torch.arange(40)]
    kept = []
    for number, (model, batch) in enumerate(zip(ranks, parts, strict=True)):
        torch.manual_seed(number)
        drop_paths_alike(model, lambda: tuple(step), torch.device("cpu"))
        state = torch.get_rng_state()
        calls = [module(torch.ones(len(batch), 1, 1), batch) for module in model for _ in range(4)]
        assert torch.equal(torch.get_rng_state(), state), "other draws are moved"
        # one row a structure
        kept.append([call[:, 0, 0][:: len(batch) // 40] for call in calls])
    for one, other in zip(*kept, strict=True):
        assert torch.equal(one, other) and 0 < (one == 0).sum() < 40
    for block in range(3):
        first, second, again, again_second = kept[0][4 * block : 4 * block + 4]
        assert torch.equal(first, again) and torch.equal(second, again_second)
        assert not torch.equal(first, second)
    assert not torch.equal(kept[0][0], kept[0][4]), "blocks differ"
    step[2] = 6
    assert not torch.equal(ranks[0][0](torch.ones(80, 1, 1), parts[0])[::2, 0, 0], kept[0][0])
