"""Attention weights: a softmax over the edges into each atom."""

from __future__ import annotations

from typing import Any

import torch
from torch_geometric.utils import softmax

from dens_ocp.models.fast.operations.launches import few_launches


class _EdgeSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, target: torch.Tensor, atoms: int) -> torch.Tensor:
        index = target[:, None].expand_as(logits)
        largest = logits.new_full((atoms, logits.shape[1]), -torch.inf)
        largest.scatter_reduce_(0, index, logits, "amax")
        weights = torch.sub(logits, largest.index_select(0, target)).exp_()
        sums = logits.new_full((atoms, logits.shape[1]), 1e-16).index_add_(0, target, weights)
        weights.div_(sums.index_select(0, target))
        ctx.save_for_backward(weights, target)
        ctx.atoms = atoms
        return weights

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        weights, target = ctx.saved_tensors
        shares = weights * gradient
        sums = gradient.new_zeros(ctx.atoms, gradient.shape[1]).index_add_(0, target, shares)
        return shares.addcmul_(weights, sums.index_select(0, target), value=-1), None, None


def edge_softmax(logits: torch.Tensor, target: torch.Tensor, atoms: int) -> torch.Tensor:
    """
    Args:
        logits: (E, heads).
        target: (E,) int64, < atoms.
        atoms: N.

    Returns:
        (E, heads); the edges into an atom add up to 1. In few launches differentiable once.
    """
    if not few_launches(logits.device):
        return softmax(logits, target, num_nodes=atoms)
    kind = logits.device.type
    with torch.autocast(kind, enabled=False):  # under autocast exponentials are in float32
        logits = logits.float() if torch.is_autocast_enabled(kind) else logits
        return _EdgeSoftmax.apply(logits, target, atoms)
