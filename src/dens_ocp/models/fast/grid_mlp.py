"""fairchem's feed-forward network on the grid, with one product per point instead of three.

The network goes to the grid, applies W1, SiLU, W2, SiLU, W3 at each of G points, and comes back.
Going to the grid mixes coefficients and W1 mixes channels: they commute, and W1 can be applied to
25 to 49 coefficients instead of 196 to 324 points; so can W3 after the way back. What is left at
the points is computed for a few atoms at a time and again in the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding
from fairchem.core.models.equiformer_v2.transformer_block import FeedForwardNetwork

from dens_ocp.models.fast.form import EquiformerV2Form, with_zero_gradients
from dens_ocp.models.fast.operations.launches import applied, blocks
from dens_ocp.models.fast.operations.matrix_products import linear, product, weight_gradient
from dens_ocp.models.fast.operations.s2_activation import grid_matrices
from dens_ocp.models.fast.operations.so3_linear import degree_linear, embedding_like, so3_linear

_silu_backward = torch.ops.aten.silu_backward


class _TwoActivations(torch.autograd.Function):
    """``from_grid^T silu(W silu(to_grid x))`` for each atom."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        to_grid: torch.Tensor,
        from_grid: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, to_grid, from_grid)
        out = x.new_empty(len(x), from_grid.shape[1], weight.shape[0])
        for atoms in blocks(len(x), len(to_grid) * x.shape[2], x.device):
            hidden = torch.bmm(_each(to_grid, x[atoms]), x[atoms])
            hidden = torch.nn.functional.silu(hidden, inplace=True)
            hidden = product(hidden.flatten(0, 1), weight).view(*hidden.shape[:2], -1)
            hidden = torch.nn.functional.silu(hidden, inplace=True)
            torch.bmm(_each(from_grid.t(), hidden), hidden, out=out[atoms])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, to_grid, from_grid = ctx.saved_tensors
        of_x, of_weight = torch.empty_like(x), torch.zeros_like(weight)
        for atoms in blocks(len(x), len(to_grid) * x.shape[2], x.device):
            first = torch.bmm(_each(to_grid, x[atoms]), x[atoms])
            hidden = torch.nn.functional.silu(first)
            second = product(hidden.flatten(0, 1), weight)
            on_grid = torch.bmm(_each(from_grid, gradient[atoms]), gradient[atoms])
            of_second = _silu_backward(on_grid.flatten(0, 1), second)
            of_weight += weight_gradient(of_second, hidden.flatten(0, 1))
            of_hidden = product(of_second, weight.t()).view_as(first)
            of_first = _silu_backward(of_hidden, first)
            torch.bmm(_each(to_grid.t(), of_first), of_first, out=of_x[atoms])
        return of_x, of_weight, None, None


def _each(matrix: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The matrix for each atom of ``values``, a view."""
    return matrix.expand(len(values), -1, -1)


def two_activations(
    x: torch.Tensor, weight: torch.Tensor, to_grid: torch.Tensor, from_grid: torch.Tensor
) -> torch.Tensor:
    """SiLU, a linear layer without bias, and SiLU at each point of the grid.

    Args:
        x: (N, I, C) coefficients. weight: (D, C).
        to_grid: (G, I). from_grid: (G, J).

    Returns:
        (N, J, D). Differentiable once, with respect to ``x`` and ``weight``.
    """
    return applied(_TwoActivations, x, weight, to_grid, from_grid)


class FastFeedForward(EquiformerV2Form, FeedForwardNetwork):
    """fairchem's ``FeedForwardNetwork`` with ``use_grid_mlp``."""

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        scalar = ScalarFeedForward.fits(model, name, module)
        return super().fits(model, name, module) and module.use_grid_mlp and not scalar

    def forward(self, input_embedding: SO3_Embedding) -> SO3_Embedding:
        x = input_embedding.embedding
        first, _, second, _, third = self.grid_mlp
        to_grid, from_grid = grid_matrices(self.SO3_grid[self.max_lmax][self.max_lmax], x.device)
        separable = self.scalar_mlp is not None
        hidden = linear(so3_linear(self.so3_linear_1, x), first.weight)
        # the separable form throws l = 0 of the grid away
        wanted = from_grid[:, 1:] if separable else from_grid
        hidden = linear(two_activations(hidden, second.weight, to_grid, wanted), third.weight)
        if separable:
            scalars = self.scalar_mlp(x[:, :1])
            hidden = torch.cat([scalars.to(hidden.dtype), hidden], 1)
        return embedding_like(input_embedding, so3_linear(self.so3_linear_2, hidden))


class ScalarFeedForward(EquiformerV2Form, FeedForwardNetwork):
    """The separable ``FeedForwardNetwork`` of a scalar head, of whose output only l = 0 is used: it
    depends on l = 0 of the input alone, and the grid is never looked at."""

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        of_head = name.rpartition(".")[2] == "energy_block"
        return super().fits(model, name, module) and of_head and module.use_sep_s2_act

    def forward(self, input_embedding: SO3_Embedding) -> SO3_Embedding:
        x = input_embedding.embedding[:, :1]
        if self.use_grid_mlp:
            hidden, beyond = self.scalar_mlp(x), [*self.grid_mlp.parameters()]
        else:
            hidden, beyond = self.s2_act.scalar_act(self.gating_linear(x)), []
        out = degree_linear(self.so3_linear_2, hidden, 0)
        out = with_zero_gradients(out, [*self.so3_linear_1.parameters(), *beyond])
        return embedding_like(input_embedding, out)
