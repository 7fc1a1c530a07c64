"""fairchem's SO(3) linear layer, one product for each degree."""

from __future__ import annotations

import torch
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding, SO3_LinearV2

from dens_ocp.fast.matrix_products import linear


def so3_linear(layer: SO3_LinearV2, x: torch.Tensor) -> torch.Tensor:
    """(N, (Lmax+1)^2, C_in) to (N, (Lmax+1)^2, C_out); fairchem expands the weights to all orders
    and multiplies each coefficient for itself."""
    return torch.cat([degree_linear(layer, x, degree) for degree in range(layer.lmax + 1)], 1)


def degree_linear(layer: SO3_LinearV2, x: torch.Tensor, degree: int) -> torch.Tensor:
    """The coefficients of one degree alone, (N, 2 degree + 1, C_out)."""
    values = x[:, degree**2 : (degree + 1) ** 2]
    return linear(values, layer.weight[degree], layer.bias if degree == 0 else None)


class FastSO3Linear(SO3_LinearV2):
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
