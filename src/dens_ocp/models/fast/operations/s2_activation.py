"""SiLU on the sphere, block by block.

fairchem's S2 activation takes coefficients (E, I, C) to a grid of G points, applies SiLU, and comes
back: 196 to 324 points stand for 19 to 29 coefficients, so the grid is ten times as large as what
it comes from; it is written, read again, and kept for the backward pass. Here a few edges at a time
go to the grid and back while their part of it lies in the cache, and the backward pass computes it
again. On a GPU a kernel does it in registers (`sphere_kernel`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fairchem.core.models.equiformer_v2.activation import (
    S2Activation,
    SeparableS2Activation,
    SmoothLeakyReLU,
)
from torch.utils.weak import WeakIdKeyDictionary

from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.operations.launches import blocks, working_dtype
from dens_ocp.models.fast.operations.matrix_products import product
from dens_ocp.models.fast.operations.sphere_kernel import fused_silu, usable


class _SiluOnSphere(torch.autograd.Function):
    """``from_grid^T silu(to_grid x)`` for each edge; coefficients come and go in several tensors,
    one after the other."""

    @staticmethod
    def forward(
        ctx: Any,
        to_grid: torch.Tensor,
        from_grid: torch.Tensor,
        sizes: tuple[int, ...],
        *parts: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(to_grid, from_grid, *parts)
        edges, channels = parts[0].shape[0], parts[0].shape[2]
        out = tuple(parts[0].new_empty(edges, size, channels) for size in sizes)
        back = from_grid.t().contiguous()
        for some in blocks(edges, to_grid.shape[0] * channels, parts[0].device):
            grid = _to_grid(to_grid, parts, some)
            values = product(back, torch.nn.functional.silu(grid, inplace=True).t())
            _scatter(values, out, some)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        to_grid, from_grid, *parts = ctx.saved_tensors
        out = [torch.empty_like(part, memory_format=torch.contiguous_format) for part in parts]
        back = to_grid.t().contiguous()
        for some in blocks(parts[0].shape[0], len(to_grid) * parts[0].shape[2], parts[0].device):
            grid = _to_grid(to_grid, parts, some)
            on_grid = _to_grid(from_grid, gradients, some)
            torch.ops.aten.silu_backward.grad_input(on_grid, grid, grad_input=on_grid)
            _scatter(product(back, on_grid.t()), out, some)
        return None, None, None, *out


def _to_grid(matrix: torch.Tensor, parts: Sequence[torch.Tensor], edges: slice) -> torch.Tensor:
    """(G, B C) values of B edges: a matrix product for all of them."""
    rows = torch.cat([part[edges].transpose(0, 1) for part in parts]).flatten(1)
    return product(matrix, rows.t())


def _scatter(values: torch.Tensor, out: Sequence[torch.Tensor], edges: slice) -> None:
    """(I, B C) to the rows of B edges."""
    start = 0
    for part in out:
        rows = values[start : start + part.shape[1]]
        part[edges] = rows.view(len(rows), -1, part.shape[2]).transpose(0, 1)
        start += part.shape[1]


def silu_on_sphere(
    parts: Sequence[torch.Tensor],
    to_grid: torch.Tensor,
    from_grid: torch.Tensor,
    sizes: Sequence[int],
) -> tuple[torch.Tensor, ...]:
    """SiLU on the grid.

    Args:
        parts: (E, I_k, C) coefficients, I in all.
        to_grid: (G, I). from_grid: (G, J): J coefficients are computed.
        sizes: J as a sum: of the parts that come back.

    Returns:
        (E, J_k, C) for each of ``sizes``. Differentiable once.
    """
    device, dtype = parts[0].device, working_dtype(parts[0])
    parts = [part.to(dtype) for part in parts]
    to_grid, from_grid = to_grid.to(dtype), from_grid.to(dtype)
    with torch.autocast(device.type, enabled=False):
        if usable(device, dtype):
            out = fused_silu(torch.cat(parts, 1), to_grid, from_grid)
            return out.split(tuple(sizes), 1)
        return _SiluOnSphere.apply(to_grid, from_grid, tuple(sizes), *parts)


class BlockedS2Activation(FastForm, S2Activation):
    """fairchem's ``S2Activation``."""

    def forward(self, inputs: torch.Tensor, SO3_grid: Any) -> torch.Tensor:
        grid = SO3_grid[self.lmax][self.mmax]
        return silu_on_sphere([inputs], *grid_matrices(grid, inputs.device), [inputs.shape[1]])[0]


class BlockedSeparableS2Activation(FastForm, SeparableS2Activation):
    """fairchem's ``SeparableS2Activation``; the l = 0 output of the sphere, which it throws away,
    is not computed."""

    def forward(
        self, input_scalars: torch.Tensor, input_tensors: torch.Tensor, SO3_grid: Any
    ) -> torch.Tensor:
        to_grid, from_grid = grid_matrices(SO3_grid[self.lmax][self.mmax], input_tensors.device)
        size = input_tensors.shape[1] - 1
        (tensors,) = silu_on_sphere([input_tensors], to_grid, from_grid[:, 1:], [size])
        scalars = self.scalar_act(input_scalars).reshape(len(tensors), 1, tensors.shape[2])
        return torch.cat([scalars.to(tensors.dtype), tensors], 1)


class SiluLeakyReLU(FastForm, SmoothLeakyReLU):
    """fairchem's smooth leaky ReLU as a x + (1 - a) SiLU(x), which is what
    (1 + a)/2 x + (1 - a)/2 x (2 sigmoid(x) - 1) comes to: one tensor is kept for the backward pass
    instead of three."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(self.alpha * x, torch.nn.functional.silu(x), alpha=1 - self.alpha)


_KNOWN: WeakIdKeyDictionary = WeakIdKeyDictionary()


def grid_matrices(
    grid: Any, device: torch.device, to_m: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices of fairchem's ``SO3_Grid`` (EquiformerV2's, eSEN's, or eSCN's, which makes them at
    the first call, on ``device``).

    Args:
        grid: fairchem's. device: where its matrices are wanted.
        to_m: fairchem's permutation matrix from degrees to orders; None: coefficients by degree.

    Returns:
        (G, I) to the grid, (G, I) back; kept as long as those of ``grid``.
    """
    there, back = grid.get_to_grid_mat(device), grid.get_from_grid_mat(device)
    known = _KNOWN.setdefault(there, {})
    if to_m not in known:
        with torch.inference_mode(False), torch.no_grad():
            matrices = [matrix.clone().flatten(0, 1) for matrix in (there, back)]
            if to_m is not None:
                order = to_m.argmax(1)
                matrices = [matrix[:, order] for matrix in matrices]
            known[to_m] = tuple(matrices)
    return known[to_m]
