"""Losses beside the configured ones: of one rank's validation batch, of outputs without a loss."""

from __future__ import annotations

import copy
import operator
from collections.abc import Collection, Iterable
from functools import reduce
from typing import Any

import torch
from fairchem.core.modules.loss import DDPLoss

from dens_ocp.models.outputs import named


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


def of_unused_outputs(outputs: Any, used: Collection[str]) -> torch.Tensor | None:
    """0, with a graph that leads to all outputs without a loss.

    Args:
        outputs: of the model: tensors by name, or by head and name (fairchem's hydra models).
        used: names that have a loss.

    Returns:
        A scalar whose gradients are zero; None where every output has a loss.
    """
    unused = [each for name, each in named(outputs) if name not in used and each.requires_grad]
    return total(0.0 * each.sum() for each in unused) if unused else None


def total(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    """The sum of scalars, of which there is one at least."""
    return reduce(operator.add, terms)
