"""fairchem's SO(3) linear layer, one product for each degree."""

from __future__ import annotations

from typing import Any

import torch
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding, SO3_LinearV2
from fairchem.core.models.esen.nn.so3_layers import SO3_Linear

from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.operations.launches import applied, few_launches
from dens_ocp.models.fast.operations.matrix_products import linear


def so3_linear(layer: SO3_LinearV2 | SO3_Linear, x: torch.Tensor) -> torch.Tensor:
    """(N, (Lmax+1)^2, C_in) to (N, (Lmax+1)^2, C_out); fairchem expands the weights to all orders
    and multiplies each coefficient for itself."""
    if few_launches(x.device):
        return applied(_Linear, x, layer.weight, layer.bias, extra=(layer.expand_index,))
    return torch.cat([degree_linear(layer, x, degree) for degree in range(layer.lmax + 1)], 1)


class _Linear(torch.autograd.Function):
    """One batched product for all coefficients, each with the weights of its degree."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        degree_of: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, degree_of)
        out = x.new_empty(*x.shape[:2], weight.shape[1])
        weights = weight.index_select(0, degree_of)
        torch.bmm(x.transpose(0, 1), weights.transpose(1, 2), out=out.transpose(0, 1))
        out[:, 0].add_(bias)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, degree_of = ctx.saved_tensors
        gradient = gradient.transpose(0, 1)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = torch.empty_like(x, memory_format=torch.contiguous_format)
            weights = weight.index_select(0, degree_of)
            torch.bmm(gradient, weights, out=of_x.transpose(0, 1))
        of_each = torch.bmm(gradient.transpose(1, 2), x.transpose(0, 1))
        of_weight = torch.zeros_like(weight).index_add_(0, degree_of, of_each)
        return of_x, of_weight, gradient[0].sum(0), None


def degree_linear(layer: SO3_LinearV2 | SO3_Linear, x: torch.Tensor, degree: int) -> torch.Tensor:
    """The coefficients of one degree alone, (N, 2 degree + 1, C_out)."""
    values = x[:, degree**2 : (degree + 1) ** 2]
    return linear(values, layer.weight[degree], layer.bias if degree == 0 else None)


class FastSO3Linear(FastForm, SO3_LinearV2):
    """fairchem's ``SO3_LinearV2``."""

    def forward(self, input_embedding: SO3_Embedding) -> SO3_Embedding:
        return embedding_like(input_embedding, so3_linear(self, input_embedding.embedding))


def embedding_like(other: SO3_Embedding, values: torch.Tensor) -> SO3_Embedding:
    """fairchem's wrapper (EquiformerV2's or eSCN's) with other values (N, (Lmax+1)^2, C)."""
    out = type(other)(
        0, other.lmax_list.copy(), values.shape[2], device=values.device, dtype=values.dtype
    )
    out.set_embedding(values)
    return out
