"""Between steps and batches: where a run may stop, and all ranks at the same place."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils

from dens_ocp.launch import signals


class StopTraining(Exception):
    """A signal asked for it; ``signal`` is its number."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


class Stepwise:
    """A loader that calls a function before each batch.

    It is called as often on every rank, also where another has more batches (``most`` of the batch
    sampler).
    """

    def __init__(self, loader: Any, before_batch: Callable[[], None]) -> None:
        self.loader, self.before_batch = loader, before_batch

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        self.before_batch()
        with signals.held():  # data workers start here
            batches = iter(self.loader)
        for batch in batches:
            yield batch
            self.before_batch()
        for _ in range(most_batches(self.loader) - len(self.loader)):
            self.before_batch()


def most_batches(loader: Any) -> int:
    """Batches of the rank that has most (``most`` of the batch sampler; without it all have as
    many)."""
    return getattr(getattr(loader, "batch_sampler", None), "most", len(loader))


class AgreedStop:
    """Whether any rank has a signal, asked by all ranks at the same places.

    The answer is that of the question before: the reduction (one number, on the CPU) runs beside
    the step, and no rank waits for it.
    """

    def __init__(self) -> None:
        many = distutils.get_world_size() > 1
        self.group = torch.distributed.new_group(backend="gloo") if many else None
        self.asked: tuple[Any, torch.Tensor] | None = None

    def signal(self) -> int:
        """The signal after which all ranks stop now, or 0."""
        if self.group is None:
            return signals.received()
        answer = self._answer()
        number = torch.tensor(signals.received())
        work = torch.distributed.all_reduce(
            number, torch.distributed.ReduceOp.MAX, self.group, async_op=True
        )
        self.asked = work, number
        return answer

    def _answer(self) -> int:
        if self.asked is None:
            return 0
        work, number = self.asked
        work.wait()
        self.asked = None
        return int(number)

    def close(self) -> None:
        """Take the last answer, so that no reduction is left when the process ends."""
        self._answer()


class UnequalLoops:
    """Loops of the ranks over batches of their own, without a meeting of all in them.

    A rank that has a signal, or learns that another one has, leaves its loop before the next batch;
    those that are done wait for the others, and leave too if one of them does. What ranks tell each
    other stands in the store of their process group, and nobody waits for a rank that has left.
    """

    _numbers = itertools.count()  # all ranks make these objects in the same order

    def __init__(self, device: torch.device | None = None) -> None:
        """Args: device: for the transport within a group of graph-parallel ranks."""
        self.device, self.world = device, distutils.get_world_size()
        if self.world > 1:
            store = torch.distributed.distributed_c10d._get_default_store()
            name = f"dens_ocp/loops/{next(self._numbers)}"
            self.store = torch.distributed.PrefixStore(name, store)

    def check(self) -> None:
        """Between two batches.

        Raises:
            StopTraining: some rank has a signal.
        """
        number = signals.received()
        if self.world > 1:
            if not number and self.store.check(["asked"]):
                number = int(self.store.get("asked"))
            if gp_utils.initialized():  # forwards are meetings of these ranks
                both = torch.tensor(number, device=self.device)
                torch.distributed.all_reduce(
                    both, torch.distributed.ReduceOp.MAX, gp_utils.get_gp_group()
                )
                number = int(both)
            if number:
                self.store.set("asked", str(number))
                self.store.set("left", str(number))
        if number:
            raise StopTraining(number)

    def wait(self) -> None:
        """After the last batch, until all ranks have called it.

        Raises:
            StopTraining: another rank has left its loop.
        """
        if self.world == 1:
            return
        self.store.add("done", 1)
        while self.store.add("done", 0) < self.world:
            if self.store.check(["left"]):
                raise StopTraining(int(self.store.get("left")))
            if signals.received():  # the others may leave; this rank is counted as done
                self.store.set("asked", str(signals.received()))
            time.sleep(0.05)
