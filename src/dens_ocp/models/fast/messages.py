"""What an edge takes from its atoms and what an atom gets from its edges.

Both are done for a few edges at a time, whose coefficients stay in the cache; what lies between a
node embedding and the input of the first SO(2) convolution, or between the output of the second and
the sum over edges, is never written as a whole, and is computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from dens_ocp.models.fast.edge_frames import EdgeFrames, MatrixFrames
from dens_ocp.models.fast.operations.launches import blocks, working_dtype


class _IntoFrames(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scale: torch.Tensor | None,
        frames: EdgeFrames,
        *ends: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(x, scale, *ends)
        ctx.frames = frames
        channels = len(ends) * x.shape[2]
        out = [
            x.new_empty(frames.size, frames.rows(order), channels)
            for order in range(frames.mmax + 1)
        ]
        for edges in blocks(frames.size, frames.coefficients * channels, x.device):
            orders = frames.into(_gathered(x, ends, edges), frames.there, edges)
            if scale is None:
                for values, into in zip(orders, out, strict=True):
                    into[edges] = values
                continue
            factors = _factors(scale[edges], frames, channels)
            for values, factor, into in zip(orders, factors, out, strict=True):
                signs = (len(values[0]) // factor.shape[2], -1)
                torch.mul(values.unflatten(1, signs), factor, out=into[edges].unflatten(1, signs))
        return tuple(out)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, scale, *ends = ctx.saved_tensors
        frames, channels = ctx.frames, len(ends) * x.shape[2]
        # sums over edges in float32: also faster there than in half precision
        of_x = torch.zeros_like(x, dtype=torch.promote_types(x.dtype, torch.float32))
        of_scale = None if scale is None else torch.empty_like(scale)
        for edges in blocks(frames.size, frames.coefficients * channels, x.device):
            parts = [gradient[edges] for gradient in gradients]
            if scale is not None and of_scale is not None:
                orders = frames.into(_gathered(x, ends, edges), frames.there, edges)
                factors = _factors(scale[edges], frames, channels)
                of_factors = _factors(of_scale[edges], frames, channels)
                for order, factor in enumerate(factors):
                    signs = (len(orders[order][0]) // factor.shape[2], -1)
                    part = parts[order].unflatten(1, signs)
                    values = orders[order].unflatten(1, signs)
                    torch.sum(values.mul_(part), 1, keepdim=True, out=of_factors[order])
                    parts[order] = (part * factor).flatten(1, 2)
            of_ends = frames.out_of(parts, frames.there, edges).split(x.shape[2], 2)
            for end, of_end in zip(ends, of_ends, strict=True):
                if x.device.type == "cpu":  # of what does not lie together it adds number by number
                    of_end = of_end.contiguous()
                of_x.index_add_(0, end[edges], of_end.to(of_x.dtype))
        return of_x.to(x.dtype), of_scale, None, *(None for _ in ends)


def _gathered(x: torch.Tensor, ends: Sequence[torch.Tensor], edges: slice) -> torch.Tensor:
    """(B, I, ends C): the embeddings at the ends of some edges."""
    values = [x.index_select(0, end[edges]) for end in ends]
    return values[0] if len(values) == 1 else torch.cat(values, 2)


def _factors(scale: torch.Tensor, frames: EdgeFrames, channels: int) -> list[torch.Tensor]:
    """Views (B, 1, degrees, channels) of the factors of each order."""
    sizes = [len(frames.degrees_of(order)) * channels for order in range(frames.mmax + 1)]
    return [part.view(len(scale), 1, -1, channels) for part in scale.split(sizes, 1)]


def into_frames(
    x: torch.Tensor,
    scale: torch.Tensor | None,
    ends: Sequence[torch.Tensor],
    frames: EdgeFrames,
) -> tuple[torch.Tensor, ...]:
    """The embeddings of one or both ends of each edge, rotated into its frame, times the radial
    function.

    Args:
        x: (N, coefficients, C) node embeddings.
        scale: (E, K): a factor for each degree and channel of each order, orders one after the
            other; +m and -m share theirs. K = channels (degrees with m = 0, with m = 1, ...).
            None: 1.
        ends: (E,) int64 each: sources, targets, or both.
        frames: of the E edges.

    Returns:
        Orders of C channels for each end (see :class:`EdgeFrames`), contiguous. Differentiable
        once, with respect to ``x`` and ``scale``.
    """
    x, scale, frames = _autocast(x, scale, frames)
    return _IntoFrames.apply(x, scale, frames, *ends)


class _OutOfFrames(torch.autograd.Function):
    """Of :class:`MatrixFrames` all orders in one tensor, and sums over edges in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        weights: torch.Tensor | None,
        target: torch.Tensor,
        atoms: int,
        frames: EdgeFrames,
        *orders: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(weights, target, *orders)
        ctx.frames, whole = frames, isinstance(frames, MatrixFrames)
        coefficients, channels, dtype = frames.coefficients, orders[0].shape[2], orders[0].dtype
        sums = torch.promote_types(dtype, torch.float32) if whole else dtype
        out = orders[0].new_zeros(atoms, coefficients, channels, dtype=sums)
        for edges in blocks(frames.size, coefficients * channels, out.device):
            parts = _parts(orders, edges, whole)
            if weights is not None:
                by_head = [_by_head(part, weights) for part in parts]
                for at, part in enumerate(by_head):
                    into = part if whole else None  # else a view of what came in
                    parts[at] = torch.mul(part, weights[edges, None, :, None], out=into).flatten(2)
            turned = frames.out_of(parts, frames.back, edges)
            out.index_add_(0, target[edges], turned.to(sums))
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weights, target, *orders = ctx.saved_tensors
        frames, whole = ctx.frames, isinstance(ctx.frames, MatrixFrames)
        sizes, gradient = [order.shape[1] for order in orders], gradient.to(orders[0].dtype)
        found = [
            gradient.new_empty(frames.size, size, gradient.shape[2])
            for size in ([sum(sizes)] if whole else sizes)
        ]
        of_weights = None if weights is None else torch.empty_like(weights)
        for edges in blocks(frames.size, gradient[0].numel(), gradient.device):
            turned = gradient.index_select(0, target[edges])
            parts = frames.into(turned, frames.back, edges)[: len(orders)]
            parts = [torch.cat(parts, 1)] if whole else parts
            if weights is None or of_weights is None:
                for into, part in zip(found, parts, strict=True):
                    into[edges] = part
                continue
            given, factor = _parts(orders, edges, whole), weights[edges, None, :, None]
            for at, (into, part) in enumerate(zip(found, parts, strict=True)):
                by_head = _by_head(part, weights)
                torch.mul(by_head, factor, out=_by_head(into[edges], weights))
                products = by_head.mul_(_by_head(given[at], weights))
                if at == 0:
                    torch.sum(products, (1, 3), out=of_weights[edges])
                else:
                    of_weights[edges] += products.sum((1, 3))
        of_orders = found[0].split(sizes, 1) if whole else found
        return of_weights, None, None, None, *of_orders


def _parts(orders: Sequence[torch.Tensor], edges: slice, whole: bool) -> list[torch.Tensor]:
    """The orders of some edges; ``whole``: in one new tensor."""
    parts = [order[edges] for order in orders]
    return [torch.cat(parts, 1)] if whole else parts


def _by_head(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(B, rows, heads, channels of a head), a view."""
    return values.unflatten(2, (weights.shape[1], -1))


def out_of_frames(
    orders: Sequence[torch.Tensor],
    weights: torch.Tensor | None,
    target: torch.Tensor,
    atoms: int,
    frames: EdgeFrames,
) -> torch.Tensor:
    """Messages times attention weights, rotated back and added up for each atom.

    Args:
        orders: m = 0 and as many more as there are (others are zero), of C channels.
        weights: (E, heads), for C / heads channels each, or None: 1.
        target: (E,) int64, < atoms.
        atoms: N.
        frames: of the E edges.

    Returns:
        (N, coefficients, C). Differentiable once, with respect to ``orders`` and ``weights``.
    """
    first, weights, frames = _autocast(orders[0], weights, frames)
    orders = [first, *(order.to(first.dtype) for order in orders[1:])]
    return _OutOfFrames.apply(weights, target, atoms, frames, *orders)


def _autocast(
    x: torch.Tensor, other: torch.Tensor | None, frames: EdgeFrames
) -> tuple[torch.Tensor, torch.Tensor | None, EdgeFrames]:
    dtype = working_dtype(x)
    return x.to(dtype), None if other is None else other.to(dtype), frames.to(dtype)
