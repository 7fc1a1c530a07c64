"""The loss of a validation batch: of the rank that has it, without a word to the others."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from fairchem.core.modules.loss import DDPLoss


class RankLoss(DDPLoss):
    """A configured loss whose mean is over the elements of this rank's batch alone.

    In training the elements of all ranks count (``modules/loss.py``), which asks every rank at
    every batch. In validation ranks may have different numbers of batches, and a batch is the same
    for any number of ranks; so is its loss then.
    """

    across_ranks = False

    @classmethod
    def of(cls, whole: DDPLoss) -> RankLoss:
        """The same function and reduction."""
        alone = copy.copy(whole)
        alone.__class__ = cls
        alone.reduction_map = {"mean": alone.mean, "sum": alone.sum}
        return alone

    def _ddp_mean(self, num_samples: int, loss: torch.Tensor) -> torch.Tensor:
        return loss / max(num_samples, 1)


def of_this_rank(loss_functions: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """fairchem's ``loss_functions`` with :class:`RankLoss` in them."""
    return [(name, {**info, "fn": RankLoss.of(info["fn"])}) for name, info in loss_functions]
