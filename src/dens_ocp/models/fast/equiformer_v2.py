"""Parts of fairchem's EquiformerV2 on edge frames: graph attention, edge-degree embedding."""

from __future__ import annotations

import torch
from fairchem.core.common import gp_utils
from fairchem.core.models.equiformer_v2.activation import SeparableS2Activation
from fairchem.core.models.equiformer_v2.input_block import EdgeDegreeEmbedding
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding
from fairchem.core.models.equiformer_v2.transformer_block import SO2EquivariantGraphAttention

from dens_ocp.models.fast.edge_frames import EdgeFrames
from dens_ocp.models.fast.form import EquiformerV2Form, with_zero_gradients
from dens_ocp.models.fast.messages import into_frames, out_of_frames
from dens_ocp.models.fast.operations.edge_softmax import edge_softmax
from dens_ocp.models.fast.operations.matrix_products import linear
from dens_ocp.models.fast.operations.radial_function import radial_function
from dens_ocp.models.fast.operations.s2_activation import grid_matrices, silu_on_sphere
from dens_ocp.models.fast.operations.so2_convolution import (
    so2_convolution,
    so2_convolution_of_degree,
)
from dens_ocp.models.fast.operations.so3_linear import embedding_like, so3_linear


class FastGraphAttention(EquiformerV2Form, SO2EquivariantGraphAttention):
    """fairchem's ``SO2EquivariantGraphAttention`` with S2 activation."""

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        of_head = name.rpartition(".")[2] == "force_block"
        return super().fits(model, name, module) and of_head == issubclass(cls, FastVectorBlock)

    def forward(
        self,
        x: SO3_Embedding,
        atomic_numbers: torch.Tensor,
        edge_distance: torch.Tensor,
        edge_index: torch.Tensor,
        node_offset: int = 0,
    ) -> SO3_Embedding:
        frames = self.SO3_rotation[0].frames
        nodes = x.embedding
        everywhere = (
            gp_utils.gather_from_model_parallel_region(nodes, dim=0)
            if gp_utils.initialized()
            else nodes
        )
        target = edge_index[1] - node_offset
        scale = self._scale(edge_distance, atomic_numbers, edge_index, frames)
        turned = into_frames(everywhere, scale, list(edge_index), frames)
        orders, scalars = so2_convolution(self.so2_conv_1, turned)
        weights = self._weights(scalars, target, len(nodes))
        return embedding_like(x, self._value(orders, scalars, weights, target, nodes, frames))

    def _value(
        self,
        orders: list[torch.Tensor],
        scalars: torch.Tensor,
        weights: torch.Tensor,
        target: torch.Tensor,
        nodes: torch.Tensor,
        frames: EdgeFrames,
    ) -> torch.Tensor:
        """(N, (Lmax+1)^2, output channels) from the output of the first convolution."""
        orders = self._activated(orders, scalars, frames, frames.mmax)
        orders, _ = so2_convolution(self.so2_conv_2, orders)
        return so3_linear(self.proj, out_of_frames(orders, weights, target, len(nodes), frames))

    def _scale(
        self,
        edge_distance: torch.Tensor,
        atomic_numbers: torch.Tensor,
        edge_index: torch.Tensor,
        frames: EdgeFrames,
    ) -> torch.Tensor:
        """(E, K) radial factors of :func:`~dens_ocp.models.fast.messages.into_frames`."""
        shared = self.use_m_share_rad
        scale = radial_function(
            self.rad_func if shared else self.so2_conv_1.rad_func,
            edge_distance,
            atomic_numbers,
            edge_index,
            (self.source_embedding, self.target_embedding),
        )
        if not shared:
            return scale
        # a factor for each degree, whatever the order: a rotation does not mix degrees
        of_degree = scale.unflatten(1, (len(frames.degrees), -1))
        return torch.cat([of_degree[:, m:].flatten(1) for m in range(frames.mmax + 1)], 1)

    def _weights(self, scalars: torch.Tensor, target: torch.Tensor, atoms: int) -> torch.Tensor:
        """(E, heads) attention weights."""
        alpha = scalars[:, : self.num_heads * self.attn_alpha_channels]
        alpha = self.alpha_norm(alpha.unflatten(1, (self.num_heads, -1)))
        alpha = torch.einsum("bik,ik->bi", self.alpha_act(alpha), self.alpha_dot)
        alpha = edge_softmax(alpha, target, atoms)
        return alpha if self.alpha_dropout is None else self.alpha_dropout(alpha)

    def _activated(
        self, orders: list[torch.Tensor], scalars: torch.Tensor, frames: EdgeFrames, mmax: int
    ) -> list[torch.Tensor]:
        """Orders after the activation, as far as ``mmax``."""
        to_grid, from_grid = grid_matrices(
            self.SO3_grid[frames.degrees[-1]][frames.mmax],
            orders[0].device,
            self.mappingReduced.to_m,
        )
        sizes = [frames.rows(order) for order in range(mmax + 1)]
        if not isinstance(self.s2_act, SeparableS2Activation):
            return list(silu_on_sphere(orders, to_grid, from_grid[:, : sum(sizes)], sizes))
        # the sphere's own l = 0 is thrown away: it is not computed
        wanted = from_grid[:, 1 : sum(sizes)]
        first, *others = silu_on_sphere(orders, to_grid, wanted, [sizes[0] - 1, *sizes[1:]])
        gate = self.s2_act.scalar_act(scalars[:, self.num_heads * self.attn_alpha_channels :])
        return [torch.cat([gate[:, None].to(first.dtype), first], 1), *others]


class FastVectorBlock(FastGraphAttention):
    """The attention block of a vector head, of whose output only l = 1 is used: nothing else is
    computed. The gradients of parameters that only other degrees need are zero, as fairchem's
    are."""

    def _value(
        self,
        orders: list[torch.Tensor],
        scalars: torch.Tensor,
        weights: torch.Tensor,
        target: torch.Tensor,
        nodes: torch.Tensor,
        frames: EdgeFrames,
    ) -> torch.Tensor:
        vectors = frames.only(1)
        orders = self._activated(orders, scalars, frames, vectors.mmax)
        orders = so2_convolution_of_degree(self.so2_conv_2, orders, 1)
        out = out_of_frames(orders, weights, target, len(nodes), vectors)
        out = linear(out, self.proj.weight[1])
        unused = [self.proj.bias, *(conv.fc.weight for conv in self.so2_conv_2.so2_m_conv[1:])]
        # fairchem's head looks for l = 1 behind l = 0
        return torch.nn.functional.pad(with_zero_gradients(out, unused), (0, 0, 1, 0))


class FastEdgeDegreeEmbedding(EquiformerV2Form, EdgeDegreeEmbedding):
    """fairchem's ``EdgeDegreeEmbedding``: only m = 0 is not zero, and only m = 0 is rotated."""

    def forward(
        self,
        atomic_numbers: torch.Tensor,
        edge_distance: torch.Tensor,
        edge_index: torch.Tensor,
        num_nodes: int,
        node_offset: int = 0,
    ) -> SO3_Embedding:
        scale = radial_function(
            self.rad_func,
            edge_distance,
            atomic_numbers,
            edge_index,
            (self.source_embedding, self.target_embedding)
            if self.use_atom_edge_embedding
            else (None, None),
        )
        order = scale.unflatten(1, (-1, self.sphere_channels))
        values = out_of_frames(
            [order], None, edge_index[1] - node_offset, num_nodes, self.SO3_rotation[0].frames
        )
        out = SO3_Embedding(
            0, self.lmax_list.copy(), self.sphere_channels, device=values.device, dtype=values.dtype
        )
        out.set_embedding(values / self.rescale_factor)
        return out
