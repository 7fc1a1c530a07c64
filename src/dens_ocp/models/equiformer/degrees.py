"""Irreps tensors taken apart by degree and put together.

In torch the gradient of ``cat`` is slices, and that of a slice a tensor of the whole size filled
with zeros. In a loss of forces, which are gradients, half of the time went there. Here the
gradient of taking apart is putting together and the other way round, in each order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from e3nn import o3


class _Parts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: list[int], whole: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return whole.split(sizes, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, _Whole.apply(*gradients)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: torch.Tensor) -> torch.Tensor:
        ctx.sizes = [part.shape[-1] for part in parts]
        return torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _Parts.apply(ctx.sizes, gradient)


def split(whole: torch.Tensor, sizes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Parts of the last axis; they are not to be changed in place."""
    return _Parts.apply(list(sizes), whole)


def cat(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts joined along the last axis."""
    return _Whole.apply(*parts)


def by_degree(features: torch.Tensor, irreps: o3.Irreps) -> list[torch.Tensor]:
    """(N, dim) -> for each degree (N, mul, 2 l + 1)."""
    parts = split(features, [mul * ir.dim for mul, ir in irreps])
    return [
        part.reshape(part.shape[0], mul, ir.dim)
        for part, (mul, ir) in zip(parts, irreps, strict=True)
    ]


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, any, any) each -> (N, dim)."""
    return cat([part.flatten(1) for part in parts])
