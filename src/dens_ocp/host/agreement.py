"""What one rank finds out and all ranks act on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from fairchem.core.common import distutils

from dens_ocp.errors import DensError

T = TypeVar("T")


def on_master(action: Callable[[], T], device: torch.device | None = None) -> T:
    """Run ``action`` on rank 0; its result is everyone's, and so is its mistake.

    Args:
        action: what rank 0 does; what it returns is pickled and sent to the others.
        device: for the transport (NCCL sends from the GPU).

    Raises:
        DensError: ``action`` raised one; on all ranks, so that none waits for the others.
    """
    outcome: list[Any] = [None, None]
    if distutils.is_master():
        try:
            outcome[0] = action()
        except DensError as error:
            outcome[1] = str(error)
    distutils.broadcast_object_list(outcome, 0, device=device)
    if outcome[1] is not None:
        raise DensError(outcome[1])
    return outcome[0]
