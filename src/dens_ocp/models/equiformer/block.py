"""A block of Equiformer: attention and feed-forward network, each behind a normalisation; and what
comes before the first one: the features of an atom's element, and of its neighbours."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from e3nn.math import normalize2mom
from torch_geometric.utils import softmax

from dens_ocp.models.equiformer.irreps import (
    EquivariantLayerNorm,
    GatedLinear,
    IrrepsLinear,
    by_degree,
    joined,
)
from dens_ocp.models.equiformer.tensor_products import (
    DepthwiseTensorProduct,
    RadialFunction,
    SeparableTensorProduct,
)

AVERAGE_DEGREE = 15.57930850982666
"""Neighbours within 5 Angstrom in QM9; the authors use it for MD17 too."""


class Edges(NamedTuple):
    """The graph of a batch. E edges from atom ``source`` into atom ``target``.

    Attributes:
        source, target: (E,) int.
        harmonics: (E, dim) spherical harmonics of source minus target.
        distances: (E, number of radial bases).
    """

    source: torch.Tensor
    target: torch.Tensor
    harmonics: torch.Tensor
    distances: torch.Tensor


def summed_into(target: torch.Tensor, messages: torch.Tensor, num_atoms: int) -> torch.Tensor:
    """(num_atoms, dim): the sum of the messages (E, dim) into each atom."""
    return messages.new_zeros(num_atoms, messages.shape[1]).index_add(0, target, messages)


def smooth_leaky_relu(x: torch.Tensor, slope: float = 0.2) -> torch.Tensor:
    """(1 + a) / 2 x + (1 - a) / 2 x (2 sigmoid(x) - 1), with a the ``slope``."""
    return (1 + slope) / 2 * x + (1 - slope) / 2 * x * (2 * torch.sigmoid(x) - 1)


class GraphAttention(torch.nn.Module):
    """Messages from both ends of an edge, weighted over the edges into an atom, and summed.

    A message is a gated tensor product of both atoms' features with the edge's spherical harmonics.
    Its weight comes from its scalars (MLP attention, a softmax over the edges into the atom).
    Without attention messages are summed and divided by the square root of the average number of
    neighbours, as the edge-degree embedding does it.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_edge: o3.Irreps,
        irreps_out: o3.Irreps,
        *,
        radial: list[int],
        irreps_pre_attn: o3.Irreps,
        irreps_head: o3.Irreps,
        num_heads: int,
        use_attention: bool = True,
        alpha_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        """
        Args:
            irreps_in, irreps_out: of an atom, in and out.
            irreps_edge: spherical harmonics of an edge.
            radial: number of radial bases and hidden sizes of the functions of the distance.
            irreps_pre_attn: of a message before it is split into heads.
            irreps_head: of a message in one head.
            num_heads: number of heads.
            use_attention: False: see the class.
            alpha_drop: dropout of attention weights.
            proj_drop: equivariant dropout of the output.
        """
        super().__init__()
        self.num_heads = num_heads
        irreps_heads = o3.Irreps([(mul * num_heads, ir) for mul, ir in irreps_head])
        scalars = irreps_heads.count("0e")
        self.merge_src = IrrepsLinear(irreps_in, irreps_pre_attn)
        self.merge_dst = IrrepsLinear(irreps_in, irreps_pre_attn, bias=False)
        self.sep_act = SeparableTensorProduct(
            irreps_pre_attn, irreps_edge, irreps_pre_attn, radial=radial, gated=True
        )
        self.sep_alpha = None
        if use_attention:
            self.sep_alpha = IrrepsLinear(self.sep_act.dtp.irreps_out, o3.Irreps([(scalars, "0e")]))
        self.sep_value = SeparableTensorProduct(
            irreps_pre_attn, irreps_edge, irreps_heads, radial=None
        )
        self.alpha_dot = None
        if use_attention:
            bound = math.sqrt(6 / (num_heads + scalars // num_heads))
            self.alpha_dot = torch.nn.Parameter(
                torch.empty(1, num_heads, scalars // num_heads).uniform_(-bound, bound)
            )
            self.alpha_act = normalize2mom(smooth_leaky_relu)
            self.alpha_dropout = torch.nn.Dropout(alpha_drop)
        self.proj = IrrepsLinear(irreps_heads, irreps_out)
        self.proj_drop = dropout_of(irreps_out, proj_drop)
        self.irreps_heads = irreps_heads

    def forward(self, features: torch.Tensor, edges: Edges) -> torch.Tensor:
        """(N, dim in) -> (N, dim out)."""
        source, target, harmonics, distances = edges
        message = self.merge_src(features)[source] + self.merge_dst(features)[target]
        message = self.sep_act.product(message, harmonics, distances)
        value = self.sep_value.product(self.sep_act.lin(message), harmonics, distances)
        value = self.sep_value.lin(value)
        if self.sep_alpha is None or self.alpha_dot is None:
            value = value / math.sqrt(AVERAGE_DEGREE)
        else:
            logits = self.sep_alpha(message).view(-1, *self.alpha_dot.shape[1:])
            logits = (self.alpha_act(logits) * self.alpha_dot).sum(dim=2)
            # (E, heads); over the edges into an atom they add up to 1
            weights = softmax(logits, target, num_nodes=features.shape[0])
            value = self._weighted(value, self.alpha_dropout(weights))
        return self.proj_drop(self.proj(summed_into(target, value, features.shape[0])))

    def _weighted(self, value: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Values (E, dim of all heads) times weights (E, heads); the channels of each degree are
        dealt to the heads in turn."""
        parts = [
            part.view(len(part), self.num_heads, mul // self.num_heads * ir.dim)
            * weights[:, :, None]
            for part, (mul, ir) in zip(
                by_degree(value, self.irreps_heads), self.irreps_heads, strict=True
            )
        ]
        return joined(parts)


class AtomEmbedding(torch.nn.Module):
    """A vector of scalars for each element; 0 for l > 0."""

    def __init__(self, irreps: o3.Irreps, max_num_elements: int) -> None:
        super().__init__()
        self.max_num_elements = max_num_elements
        self.atom_type_lin = IrrepsLinear(f"{max_num_elements}x0e", irreps, one_hot=True)

    def forward(self, atomic_numbers: torch.Tensor) -> torch.Tensor:
        """(N,) int, below ``max_num_elements`` -> (N, dim)."""
        one_hot = torch.nn.functional.one_hot(atomic_numbers, self.max_num_elements)
        return self.atom_type_lin(one_hot.to(self.atom_type_lin.tp["weight"].dtype))


class EdgeDegreeEmbedding(torch.nn.Module):
    """The sum over neighbours of a constant vector times the edge's spherical harmonics, with
    weights that depend on the distance (Equiformer, Section 4.4)."""

    def __init__(self, irreps: o3.Irreps, irreps_edge: o3.Irreps, radial: list[int]) -> None:
        super().__init__()
        self.exp = IrrepsLinear("1x0e", irreps)
        self.dw = DepthwiseTensorProduct(irreps, irreps_edge, irreps)
        self.rad = RadialFunction([*radial, self.dw.weight_numel])
        self.proj = IrrepsLinear(self.dw.irreps_out, irreps)

    def forward(self, edges: Edges, num_atoms: int) -> torch.Tensor:
        """(num_atoms, dim)."""
        constant = self.exp(edges.distances.new_ones(len(edges.target), 1))
        messages = self.proj(self.dw(constant, edges.harmonics, self.rad(edges.distances)))
        return summed_into(edges.target, messages, num_atoms) / math.sqrt(AVERAGE_DEGREE)


def norm_of(irreps: o3.Irreps, norm_layer: str | None) -> torch.nn.Module:
    """``layer``: equivariant layer normalisation; None: the identity."""
    return torch.nn.Identity() if norm_layer is None else EquivariantLayerNorm(irreps)


def dropout_of(irreps: o3.Irreps, rate: float) -> torch.nn.Module:
    """Equivariant dropout; the identity for a rate of 0."""
    return e3nn_nn.Dropout(irreps, rate) if rate else torch.nn.Identity()


class FeedForward(torch.nn.Module):
    """Gated linear layer, linear layer."""

    def __init__(
        self, irreps_in: o3.Irreps, irreps_mid: o3.Irreps, irreps_out: o3.Irreps, drop: float
    ) -> None:
        super().__init__()
        self.fctp_1 = GatedLinear(irreps_in, irreps_mid)
        self.fctp_2 = IrrepsLinear(irreps_mid, irreps_out)
        self.proj_drop = dropout_of(irreps_out, drop)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.proj_drop(self.fctp_2(self.fctp_1(features)))


def stochastic_depth(features: torch.Tensor, batch: torch.Tensor, rate: float) -> torch.Tensor:
    """Leaves out the residual branch (N, dim) of a structure with probability ``rate``; ``batch``
    (N,) int, structure of each atom."""
    if rate == 0 or len(batch) == 0:
        return features
    kept = torch.rand(int(batch.max()) + 1, 1, device=features.device) >= rate
    return features * (kept.to(features.dtype) / (1 - rate))[batch]


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
            drop_path_rate: of :func:`stochastic_depth`, in training.
            attention: options of :class:`GraphAttention`.
        """
        super().__init__()
        self.norm_1 = norm_of(irreps_in, norm_layer)
        self.ga = GraphAttention(irreps_in, irreps_edge, irreps_in, **attention)
        self.drop_path_rate = drop_path_rate
        self.norm_2 = norm_of(irreps_in, norm_layer)
        self.ffn = FeedForward(
            irreps_in, irreps_mlp_mid, irreps_out, attention.get("proj_drop", 0.0)
        )
        same = irreps_in == irreps_out
        self.ffn_shortcut = torch.nn.Identity() if same else IrrepsLinear(irreps_in, irreps_out)

    def forward(self, features: torch.Tensor, edges: Edges, batch: torch.Tensor) -> torch.Tensor:
        """(N, dim in) -> (N, dim out); ``batch`` (N,) int, structure of each atom."""
        rate = self.drop_path_rate if self.training else 0.0
        branch = self.ga(self.norm_1(features), edges)
        features = features + stochastic_depth(branch, batch, rate)
        branch = stochastic_depth(self.ffn(self.norm_2(features)), batch, rate)
        return branch + self.ffn_shortcut(features)
