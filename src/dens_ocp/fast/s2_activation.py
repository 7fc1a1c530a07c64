"""SiLU on the sphere, block by block.

fairchem's S2 activation takes coefficients (E, I, C) to a grid of G points, applies SiLU, and comes
back: 196 to 324 points stand for 19 to 29 coefficients, so the grid is ten times as large as what
it comes from; it is written, read again, and kept for the backward pass. Here a few edges at a time
go to the grid and back while their part of it lies in the cache, and the backward pass computes it
again.
"""

from __future__ import annotations

from typing import Any

import torch
from fairchem.core.models.equiformer_v2.activation import S2Activation, SeparableS2Activation

BLOCK_VALUES = 1 << 18
"""Values of the grid that are held at a time on a CPU: 1 MiB in float32."""


class _SiluOnSphere(torch.autograd.Function):
    """``from_grid^T silu(to_grid x)`` for each edge; once differentiable."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, to_grid: torch.Tensor, from_grid: torch.Tensor
    ) -> torch.Tensor:
        ctx.save_for_backward(x, to_grid, from_grid)
        back = from_grid.t()
        out = x.new_empty(x.shape[0], from_grid.shape[1], x.shape[2])
        for start, stop in blocks(x, to_grid.shape[0]):
            grid = torch.matmul(to_grid, x[start:stop])
            torch.matmul(back, torch.nn.functional.silu(grid, inplace=True), out=out[start:stop])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, to_grid, from_grid = ctx.saved_tensors
        back = to_grid.t()
        out = torch.empty_like(x)
        for start, stop in blocks(x, to_grid.shape[0]):
            grid = torch.matmul(to_grid, x[start:stop])
            on_grid = torch.matmul(from_grid, gradient[start:stop])
            torch.matmul(
                back, torch.ops.aten.silu_backward(on_grid, grid), out=out[start:stop]
            )
        return out, None, None


def blocks(x: torch.Tensor, points: int) -> list[tuple[int, int]]:
    """Ranges of edges whose grids fit into the cache; on other devices than the CPU one range of
    at most 2^28 values, for the memory's sake."""
    limit = BLOCK_VALUES if x.device.type == "cpu" else 1 << 28
    step = max(1, limit // max(1, points * x.shape[2]))
    return [(start, min(start + step, len(x))) for start in range(0, len(x), step)]


def silu_on_sphere(
    x: torch.Tensor, to_grid: torch.Tensor, from_grid: torch.Tensor
) -> torch.Tensor:
    """SiLU on the grid.

    Args:
        x: (E, I, C) coefficients.
        to_grid: (G, I). from_grid: (G, J): with J < I some coefficients are not computed.

    Returns:
        (E, J, C). Second derivatives are not defined.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    to_grid, from_grid = to_grid.to(x.dtype), from_grid.to(x.dtype)
    with torch.autocast(x.device.type, enabled=False):
        return _SiluOnSphere.apply(x, to_grid, from_grid)


class BlockedS2Activation(S2Activation):
    """fairchem's ``S2Activation``."""

    def forward(self, inputs: torch.Tensor, SO3_grid: Any) -> torch.Tensor:
        to_grid, from_grid = _matrices(SO3_grid[self.lmax][self.mmax])
        return silu_on_sphere(inputs, to_grid, from_grid)


class BlockedSeparableS2Activation(SeparableS2Activation):
    """fairchem's ``SeparableS2Activation``; the l = 0 output of the sphere, which it throws away,
    is not computed."""

    def forward(
        self, input_scalars: torch.Tensor, input_tensors: torch.Tensor, SO3_grid: Any
    ) -> torch.Tensor:
        to_grid, from_grid = _matrices(SO3_grid[self.lmax][self.mmax])
        tensors = silu_on_sphere(input_tensors, to_grid, from_grid[:, 1:])
        scalars = self.scalar_act(input_scalars).reshape(len(tensors), 1, tensors.shape[2])
        return torch.cat([scalars.to(tensors.dtype), tensors], 1)


def _matrices(grid: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(G, I) to the grid, (G, I) back."""
    return grid.to_grid_mat.flatten(0, 1), grid.from_grid_mat.flatten(0, 1)
