"""A block of Equiformer: attention and feed-forward network, each behind a normalisation."""

from __future__ import annotations

from typing import Any

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

from dens_ocp.models.equiformer.gate import Gate
from dens_ocp.models.equiformer.graph_attention import Edges, GraphAttention
from dens_ocp.models.equiformer.layer_norm import EquivariantLayerNorm
from dens_ocp.models.equiformer.linear import IrrepsLinear


def norm_of(irreps: o3.Irreps, norm_layer: str | None) -> torch.nn.Module:
    """``layer``: equivariant layer normalisation; None: the identity."""
    return torch.nn.Identity() if norm_layer is None else EquivariantLayerNorm(irreps)


class GatedLinear(IrrepsLinear):
    """A linear layer and a gate."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> None:
        gate = Gate(irreps_out)
        super().__init__(irreps_in, gate.irreps_in)
        self.gate = gate

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.gate(super().forward(features))


class FeedForward(torch.nn.Module):
    """Gated linear layer, linear layer."""

    def __init__(
        self, irreps_in: o3.Irreps, irreps_mid: o3.Irreps, irreps_out: o3.Irreps, drop: float
    ) -> None:
        super().__init__()
        self.fctp_1 = GatedLinear(irreps_in, irreps_mid)
        self.fctp_2 = IrrepsLinear(irreps_mid, irreps_out)
        self.proj_drop = e3nn_nn.Dropout(irreps_out, drop) if drop else None

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        output = self.fctp_2(self.fctp_1(features))
        return output if self.proj_drop is None else self.proj_drop(output)


class StochasticDepth(torch.nn.Module):
    """In training, leaves out the residual branch of a structure with probability ``rate``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, features: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """Features (N, dim); batch (N,) int, structure of each atom."""
        if not self.training or self.rate == 0 or len(batch) == 0:
            return features
        kept = torch.rand(int(batch.max()) + 1, 1, device=features.device) >= self.rate
        return features * (kept.to(features.dtype) / (1 - self.rate))[batch]


class EquiformerBlock(torch.nn.Module):
    """x + attention(norm(x)), then x + feed-forward(norm(x)).

    Where the number of channels changes, the residual path of the latter has a linear layer.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_edge: o3.Irreps,
        irreps_out: o3.Irreps,
        *,
        irreps_mlp_mid: o3.Irreps,
        norm_layer: str | None,
        drop_path_rate: float,
        **attention: Any,
    ) -> None:
        """
        Args:
            irreps_in, irreps_edge, irreps_out: as they say.
            irreps_mlp_mid: inside the feed-forward network.
            norm_layer: see :func:`norm_of`.
            drop_path_rate: of :class:`StochasticDepth`.
            attention: options of :class:`GraphAttention`.
        """
        super().__init__()
        self.norm_1 = norm_of(irreps_in, norm_layer)
        self.ga = GraphAttention(irreps_in, irreps_edge, irreps_in, **attention)
        self.drop_path = StochasticDepth(drop_path_rate)
        self.norm_2 = norm_of(irreps_in, norm_layer)
        self.ffn = FeedForward(
            irreps_in, irreps_mlp_mid, irreps_out, attention.get("proj_drop", 0.0)
        )
        self.ffn_shortcut = None if irreps_in == irreps_out else IrrepsLinear(irreps_in, irreps_out)

    def forward(self, features: torch.Tensor, edges: Edges, batch: torch.Tensor) -> torch.Tensor:
        """(N, dim in) -> (N, dim out); ``batch`` (N,) int, structure of each atom."""
        features = features + self.drop_path(self.ga(self.norm_1(features), edges), batch)
        branch = self.drop_path(self.ffn(self.norm_2(features)), batch)
        return branch + (features if self.ffn_shortcut is None else self.ffn_shortcut(features))
