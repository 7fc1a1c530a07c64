"""Equivariant layer normalisation (Equiformer, Section 4.1)."""

from __future__ import annotations

import torch
from e3nn import o3

from dens_ocp.models.equiformer.degrees import by_degree, joined


class EquivariantLayerNorm(torch.nn.Module):
    """Divides the channels of each degree by the root mean square of their components.

    Scalars lose their mean before and get a bias after. Parameters: ``affine_weight``, one per
    channel; ``affine_bias``, one per scalar channel.
    """

    def __init__(self, irreps: o3.Irreps, eps: float = 1e-5) -> None:
        super().__init__()
        self.irreps = o3.Irreps(irreps)
        self.eps = eps
        self.affine_weight = torch.nn.Parameter(torch.ones(self.irreps.num_irreps))
        self.affine_bias = torch.nn.Parameter(torch.zeros(self.irreps.count("0e")))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, dim) -> (N, dim)."""
        weights = self.affine_weight.split([mul for mul, _ in self.irreps])
        outputs = []
        for (_, ir), field, weight in zip(
            self.irreps, by_degree(features, self.irreps), weights, strict=True
        ):
            if ir.l == 0:
                field = field - field.mean(dim=1, keepdim=True)
            mean_square = field.square().mean(dim=(1, 2), keepdim=True)
            field = field * (mean_square + self.eps).rsqrt() * weight[:, None]
            if ir.l == 0:
                field = field + self.affine_bias[:, None]
            outputs.append(field)
        return joined(outputs)
