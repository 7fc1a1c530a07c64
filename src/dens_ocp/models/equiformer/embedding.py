"""The first features of an atom: its element, and the number and place of its neighbours."""

from __future__ import annotations

import math

import torch
from e3nn import o3

from dens_ocp.models.equiformer.depthwise import DepthwiseTensorProduct
from dens_ocp.models.equiformer.graph_attention import AVERAGE_DEGREE, Edges, summed_into
from dens_ocp.models.equiformer.linear import IrrepsLinear
from dens_ocp.models.equiformer.radial import RadialFunction


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
