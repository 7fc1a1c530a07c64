"""Evaluation on several ranks: each record once, in the same batches for any number of ranks.

fairchem pads the last batch with records that are there already: metrics count them twice, and two
ranks may relax one system and write one file. Its ranks meet at every batch, or give up after 30
minutes (the time limit of their process group) when one still relaxes and another is done.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from fairchem.core.common import distutils
from torch.utils.data import BatchSampler, Sampler

from dens_ocp.errors import DensError

_PATIENCE = datetime.timedelta(days=1)


class DealtBatches(Sampler[list[int]]):
    """The batches of a run on one rank, dealt out: batch b goes to rank b modulo ``world``.

    Which systems are in one batch does not depend on the number of ranks, so a run can go on with
    another number. Relaxations take long: batches are made smaller where there are fewer than
    ranks. In predictions and validation a rank may have none.

    Args:
        size: number of systems. batch_size: systems of a batch.
        rank, world: this rank and the number of ranks (of data-parallel groups).
        every_rank: each rank has a batch.

    Raises:
        DensError: fewer systems than ranks, and each is to have a batch.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        rank: int = 0,
        world: int = 1,
        every_rank: bool = True,
    ) -> None:
        if every_rank and size < world:
            raise DensError(
                f"dataset.relax has only {size} systems for {world} ranks; use --num-gpus {size} "
                "or fewer (and as many nodes)"
            )
        batch_size = max(min(batch_size, size), 1)
        if every_rank and -(-size // batch_size) < world:
            batch_size = size // world
        self.batches = BatchSampler(range(size), batch_size, drop_last=False)
        self.rank, self.world = rank, world

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self.batches, self.rank, None, self.world)

    def __len__(self) -> int:
        return len(range(self.rank, len(self.batches), self.world))

    @property
    def most(self) -> int:
        """Batches of the rank that has most."""
        return -(-len(self.batches) // self.world)


class WaitingLoader:
    """A loader whose end is reached when all ranks have reached theirs.

    Args:
        loader: this rank's batches. limit: of batches, or None.
        wait: returns when all ranks have called it.
    """

    def __init__(
        self, loader: Any, limit: int | None = None, wait: Callable[[], None] = lambda: None
    ) -> None:
        self.loader, self.limit, self.wait = loader, limit, wait

    def __iter__(self) -> Iterator[Any]:
        yield from islice(self.loader, self.limit)
        self.wait()

    def __len__(self) -> int:
        return len(self.loader) if self.limit is None else min(self.limit, len(self.loader))


def patient_group() -> Any:
    """A process group of all ranks that waits for a day, or None for a single rank."""
    if distutils.get_world_size() == 1:
        return None
    return torch.distributed.new_group(timeout=_PATIENCE)
