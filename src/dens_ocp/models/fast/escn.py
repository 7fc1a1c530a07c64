"""fairchem's eSCN on edge frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.models.escn.escn import LayerBlock, MessageBlock, SO2Block

from dens_ocp.models.fast.edge_frames import edge_frames
from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.grid_mlp import two_activations
from dens_ocp.models.fast.messages import into_frames, out_of_frames
from dens_ocp.models.fast.operations.matrix_products import linear
from dens_ocp.models.fast.operations.s2_activation import grid_matrices, silu_on_sphere
from dens_ocp.models.fast.operations.so3_linear import embedding_like

if TYPE_CHECKING:
    from fairchem.core.models.escn.so3 import CoefficientMapping, SO3_Embedding


class FastMessageBlock(FastForm, MessageBlock):
    """fairchem's ``MessageBlock``: the source's and the target's SO(2) blocks add up in one
    product, and their coefficients come and go by order."""

    def forward(
        self,
        x: SO3_Embedding,
        atomic_numbers: torch.Tensor,
        edge_distance: torch.Tensor,
        edge_index: torch.Tensor,
        SO3_edge_rot: Sequence[Any],
        mappingReduced: CoefficientMapping,
    ) -> SO3_Embedding:
        lmax, mmax = self.lmax_list[0], self.mmax_list[0]
        frames = edge_frames(SO3_edge_rot[0].wigner, lmax, mmax, rescale=False)
        x_edge = self.edge_block(
            edge_distance, atomic_numbers[edge_index[0]], atomic_numbers[edge_index[1]]
        )
        blocks = (self.so2_block_source, self.so2_block_target)
        ends = [into_frames(x.embedding, None, [end], frames) for end in edge_index]
        orders = so2_blocks(blocks, ends, x_edge)
        to_grid, from_grid = grid_matrices(
            self.SO3_grid[lmax][mmax], x.embedding.device, mappingReduced.to_m
        )
        sizes = [order.shape[1] for order in orders]
        activated = silu_on_sphere(orders, to_grid, from_grid, sizes)
        out = out_of_frames(activated, None, edge_index[1], len(x.embedding), frames)
        return embedding_like(x, out)


def so2_blocks(
    blocks: Sequence[SO2Block],
    ends: Sequence[Sequence[torch.Tensor]],
    x_edge: torch.Tensor,
) -> list[torch.Tensor]:
    """The sum of several ``SO2Block``.

    Args:
        blocks: fairchem's, for their weights.
        ends: for each block its orders (see :class:`~dens_ocp.models.fast.edge_frames.EdgeFrames`).
        x_edge: (E, edge channels).

    Returns:
        Orders.
    """
    hidden, weights = [], []
    for block, orders in zip(blocks, ends, strict=True):
        factor = block.act(block.fc1_dist0(x_edge))
        hidden.append(linear(orders[0].flatten(1), block.fc1_m0.weight) * factor)
        weights.append(block.fc2_m0.weight)
    out = [linear(torch.cat(hidden, 1), torch.cat(weights, 1))]
    for order in range(1, len(ends[0])):
        hidden, weights = [], []
        for block, orders in zip(blocks, ends, strict=True):
            layer = block.so2_conv[order - 1]
            factor = layer.act(layer.fc1_dist(x_edge))[:, None]
            first = torch.cat([layer.fc1_r.weight, layer.fc1_i.weight])
            values = linear(orders[order].unflatten(1, (2, -1)).flatten(2), first) * factor
            real, imaginary = values.chunk(2, 2)
            # i times what the imaginary weights make of +m and -m
            turned = torch.stack([-imaginary[:, 1], imaginary[:, 0]], 1)
            hidden += [real, turned]
            weights += [layer.fc2_r.weight, layer.fc2_i.weight]
        out.append(linear(torch.cat(hidden, 2), torch.cat(weights, 1)))
    channels = ends[0][0].shape[2]
    return [values.flatten(1).unflatten(1, (-1, channels)) for values in out]


class FastLayerBlock(FastForm, LayerBlock):
    """fairchem's ``LayerBlock``: of the network at each point of the grid the first and the last
    layer are applied to coefficients (see :mod:`dens_ocp.models.fast.grid_mlp`)."""

    def forward(
        self,
        x: SO3_Embedding,
        atomic_numbers: torch.Tensor,
        edge_distance: torch.Tensor,
        edge_index: torch.Tensor,
        SO3_edge_rot: Sequence[Any],
        mappingReduced: CoefficientMapping,
    ) -> SO3_Embedding:
        message = self.message_block(
            x, atomic_numbers, edge_distance, edge_index, SO3_edge_rot, mappingReduced
        )
        grid = self.SO3_grid[self.lmax_list[0]][self.lmax_list[0]]
        to_grid, from_grid = grid_matrices(grid, x.embedding.device)
        both = torch.cat([x.embedding, message.embedding.to(x.embedding.dtype)], 2)
        hidden = linear(both, self.fc1_sphere.weight)
        hidden = two_activations(hidden, self.fc2_sphere.weight, to_grid, from_grid)
        return embedding_like(x, linear(hidden, self.fc3_sphere.weight))
