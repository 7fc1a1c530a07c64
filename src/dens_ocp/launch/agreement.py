"""What one rank finds out and all ranks act on."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from fairchem.core.common import distutils

from dens_ocp.errors import DensError

T = TypeVar("T")


class MasterFailed(RuntimeError):
    """Rank 0 has failed, and says why."""


def on_master(action: Callable[[], T], device: torch.device | None = None) -> T:
    """Run ``action`` on rank 0; its result is everyone's, and so is its failure.

    Args:
        action: what rank 0 does; what it returns is pickled and sent to the others.
        device: for the transport (NCCL sends from the GPU).

    Raises:
        DensError: ``action`` raised one; on all ranks, so that none waits for the others.
        MasterFailed: on the others, if it raised anything else, which rank 0 raises.
    """
    outcome: list[Any] = [None, None, None]
    failure: BaseException | None = None
    if distutils.is_master():
        try:
            outcome[0] = action()
            pickle.dumps(outcome)
        except DensError as error:
            outcome = [None, str(error), None]
        except BaseException as error:
            failure, outcome = error, [None, None, f"{type(error).__name__}: {error}"]
    distutils.broadcast_object_list(outcome, 0, device=device)
    if failure is not None:
        raise failure
    if outcome[1] is not None:
        raise DensError(outcome[1])
    if outcome[2] is not None:
        raise MasterFailed(f"rank 0 failed with {outcome[2]}")
    return outcome[0]


class Failures:
    """Exceptions of calls that only rank 0 makes, kept until all ranks can hear of them."""

    def __init__(self) -> None:
        self.first: Exception | None = None

    def kept(self, function: Callable[..., T], instead: T) -> Callable[..., T]:
        """``function``, which returns ``instead`` where it would raise."""

        def call(*args: Any, **options: Any) -> T:
            try:
                return function(*args, **options)
            except Exception as error:
                self.first = self.first or error
                return instead

        return call

    def raise_on_all(self, device: torch.device | None = None) -> None:
        """Raise rank 0's first failure, on all ranks, as :func:`on_master` does."""

        def fail() -> None:
            if self.first is not None:
                raise self.first

        on_master(fail, device)
