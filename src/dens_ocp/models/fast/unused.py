"""Gradients of parameters whose part of the computation is left out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, *unused: torch.Tensor) -> torch.Tensor:
        ctx.unused = [(each.shape, each.dtype, each.device) for each in unused]
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        zeros = (torch.zeros(s, dtype=dtype, device=device) for s, dtype, device in ctx.unused)
        return gradient, *zeros


def with_zero_gradients(out: torch.Tensor, unused: Sequence[torch.Tensor]) -> torch.Tensor:
    """``out``, whose gradient with respect to ``unused`` is zero rather than none: AdamW decays
    such parameters, and DDP waits for them."""
    return _WithZeroGradients.apply(out, *unused)
