"""fairchem's edge-degree embedding on edge frames."""

from __future__ import annotations

import torch
from fairchem.core.models.equiformer_v2.input_block import EdgeDegreeEmbedding
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding

from dens_ocp.models.fast.messages import out_of_frames
from dens_ocp.models.fast.operations.radial_function import radial_function


class FastEdgeDegreeEmbedding(EdgeDegreeEmbedding):
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
