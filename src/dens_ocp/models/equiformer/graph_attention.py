"""Equivariant graph attention with non-linear messages (Equiformer, Section 4.3), and without
attention."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from e3nn.math import normalize2mom
from torch_geometric.utils import softmax

from dens_ocp.models.equiformer.degrees import by_degree, joined
from dens_ocp.models.equiformer.depthwise import SeparableTensorProduct
from dens_ocp.models.equiformer.linear import IrrepsLinear

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
        self.proj_drop = e3nn_nn.Dropout(irreps_out, proj_drop) if proj_drop else None
        self.irreps_heads = irreps_heads

    def forward(self, features: torch.Tensor, edges: Edges) -> torch.Tensor:
        """(N, dim in) -> (N, dim out)."""
        source, target, harmonics, distances = edges
        message = self.merge_src(features)[source] + self.merge_dst(features)[target]
        message = self.sep_act.product(message, harmonics, distances)
        value = self.sep_value.product(self.sep_act.mixed(message), harmonics, distances)
        value = self.sep_value.mixed(value)
        if self.sep_alpha is None:
            value = value / math.sqrt(AVERAGE_DEGREE)
        else:
            value = self._weighted(value, self._weights(message, target, features.shape[0]))
        output = self.proj(summed_into(target, value, features.shape[0]))
        return output if self.proj_drop is None else self.proj_drop(output)

    def _weights(self, message: torch.Tensor, target: torch.Tensor, num: int) -> torch.Tensor:
        """(E, heads): attention weights; their sum over the edges into an atom is 1."""
        logits = self.sep_alpha(message).view(-1, self.num_heads, self.alpha_dot.shape[2])
        logits = (self.alpha_act(logits) * self.alpha_dot).sum(dim=2)
        return self.alpha_dropout(softmax(logits, target, num_nodes=num))

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
