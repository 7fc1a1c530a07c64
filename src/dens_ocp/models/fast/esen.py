"""Fast forms of eSEN's blocks. Coefficients of an edge lie by order from one rotation to the other,
so that nothing is permuted between, and only the orders that the convolutions have are rotated.

A class for forces of a head, whose parts are differentiable once, and one for forces that are
gradients, which are differentiated again, made of torch's own operations; the model decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from fairchem.core.models.esen.common.so3 import CoefficientMapping
from fairchem.core.models.esen.esen_block import Edgewise, GridAtomwise
from fairchem.core.models.esen.nn.activation import GateActivation
from fairchem.core.models.esen.nn.embedding import EdgeDegreeEmbedding
from fairchem.core.models.esen.nn.so2_layers import SO2_Convolution
from fairchem.core.models.esen.nn.so3_layers import SO3_Linear

from dens_ocp.models.fast.edge_frames import EdgeFrames, edge_frames
from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.messages import into_frames, out_of_frames
from dens_ocp.models.fast.operations.s2_activation import grid_matrices, silu_on_sphere
from dens_ocp.models.fast.operations.so2_convolution import so2_convolution
from dens_ocp.models.fast.operations.so3_linear import so3_linear


class EdgeRotations(NamedTuple):
    """What stands in the place of the Wigner matrices of a batch of E edges, to be differentiated.

    Attributes:
        there: (E, K, (lmax + 1)^2), from an atom's coefficients to the K of an edge, by order:
            m = 0 first, then +1, -1, ...
        back: (E, (lmax + 1)^2, K), the other way, times the envelope of the edge's length.
    """

    there: torch.Tensor
    back: torch.Tensor


def rotations(
    wigner: torch.Tensor, wigner_inv: torch.Tensor, block: FastEdgewise, lengths: torch.Tensor
) -> tuple[Any, Any]:
    """What the blocks are given for ``wigner`` and ``wigner_inv``, made once for all of them.

    Args:
        wigner, wigner_inv: (E, (lmax + 1)^2, (lmax + 1)^2). block: a layer's. lengths: (E,).
    """
    envelope = None
    if block.use_envelope:
        envelope = block.envelope(lengths / block.cutoff)[:, None, None]
    if block.once:
        frames = edge_frames(wigner, block.lmax, block.mmax, rescale=False)
        if envelope is not None:
            frames.back = tuple(envelope * matrix for matrix in frames.back)
        return frames, frames
    rows = block.out_mask[block.mappingReduced.to_m.argmax(dim=1)]
    back = wigner_inv[:, :, rows]
    return EdgeRotations(wigner[:, rows], back if envelope is None else back * envelope)


def _rows(mapping: CoefficientMapping) -> list[int]:
    """Coefficients of each order, both signs."""
    return [size if order == 0 else 2 * size for order, size in enumerate(mapping.m_size)]


class FastEdgewise(FastForm, Edgewise):
    """fairchem's ``Edgewise``, for direct forces; ``wigner`` is of :func:`rotations`."""

    once = True

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        return getattr(model, "gradient_forces", False) is not cls.once

    def forward(
        self,
        x: torch.Tensor,
        x_edge: torch.Tensor,
        edge_distance: torch.Tensor,
        edge_index: torch.Tensor,
        wigner: Any,
        wigner_inv: Any,
        node_offset: int = 0,
    ) -> torch.Tensor:
        scale = self.so2_conv_1.rad_func(x_edge)
        orders: Sequence[torch.Tensor] = self._into(x, scale, edge_index, wigner)
        orders, extra = self._convolved(self.so2_conv_1, orders)
        orders, _ = self._convolved(self.so2_conv_2, self._activated(extra, orders))
        return self._out_of(orders, edge_index[1] - node_offset, len(x), wigner_inv)

    def _into(
        self, x: torch.Tensor, scale: torch.Tensor, ends: torch.Tensor, frames: Any
    ) -> Sequence[torch.Tensor]:
        """Both ends of each edge in its frame, times the radial function."""
        return into_frames(x, scale, list(ends), frames)

    def _out_of(
        self, orders: Sequence[torch.Tensor], target: torch.Tensor, atoms: int, frames: Any
    ) -> torch.Tensor:
        """Messages rotated back, times the envelope, added up."""
        return out_of_frames(orders, None, target, atoms, frames)

    def _convolved(
        self, layer: SO2_Convolution, orders: Sequence[torch.Tensor]
    ) -> tuple[Sequence[torch.Tensor], torch.Tensor]:
        return so2_convolution(layer, orders, twice=not self.once)

    def _activated(
        self, scalars: torch.Tensor, orders: Sequence[torch.Tensor]
    ) -> Sequence[torch.Tensor]:
        if isinstance(self.act, GateActivation):
            return _gated(scalars, orders)
        first = torch.nn.functional.silu(scalars)[:, None]
        vectors = self._on_sphere(orders)
        return [torch.cat([first, vectors[0][:, 1:]], dim=1), *vectors[1:]]

    def _on_sphere(self, orders: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        matrices = self._grid(orders[0].device)
        return silu_on_sphere(list(orders), *matrices, _rows(self.mappingReduced))

    def _grid(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        return grid_matrices(self.SO3_grid["lmax_mmax"], device, self.mappingReduced.to_m)


def _gated(scalars: torch.Tensor, orders: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """fairchem's ``GateActivation``: SiLU of l = 0, a factor for each degree above."""
    channels = orders[0].shape[2]
    gates = torch.sigmoid(scalars).view(len(scalars), -1, channels)  # of l = 1, 2, ...
    first = torch.nn.functional.silu(orders[0][:, :1])
    activated = [torch.cat([first, orders[0][:, 1:] * gates], dim=1)]
    for order, values in enumerate(orders[1:], start=1):
        both = values.unflatten(1, (2, -1)) * gates[:, None, order - 1 :]
        activated.append(both.flatten(1, 2))
    return activated


class TwiceEdgewise(FastEdgewise):
    """The same for forces that are gradients; ``wigner`` is that of :class:`EdgeRotations`."""

    once = False

    def _into(
        self, x: torch.Tensor, scale: torch.Tensor, ends: torch.Tensor, frames: Any
    ) -> Sequence[torch.Tensor]:
        values = torch.cat([x.index_select(0, end) for end in ends], dim=2)
        orders = torch.bmm(frames, values).split(_rows(self.mappingReduced), dim=1)
        sizes, channels = self.mappingReduced.m_size, values.shape[2]
        factors = scale.split([size * channels for size in sizes], dim=1)
        return [
            (each.unflatten(1, (-1, size)) * factor.view(-1, 1, size, channels)).flatten(1, 2)
            for each, factor, size in zip(orders, factors, sizes, strict=True)
        ]

    def _out_of(
        self, orders: Sequence[torch.Tensor], target: torch.Tensor, atoms: int, frames: Any
    ) -> torch.Tensor:
        messages = torch.bmm(frames, torch.cat(list(orders), dim=1))
        return messages.new_zeros(atoms, *messages.shape[1:]).index_add(0, target, messages)

    def _on_sphere(self, orders: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        to_grid, from_grid = self._grid(orders[0].device)
        values = torch.nn.functional.silu(to_grid @ torch.cat(list(orders), dim=1))
        return (from_grid.t() @ values).split(_rows(self.mappingReduced), dim=1)


class FastEdgeDegree(FastForm, EdgeDegreeEmbedding):
    """fairchem's ``EdgeDegreeEmbedding``: only m = 0 is rotated, the others are zero."""

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        return hasattr(model, "get_rotmat_and_wigner")

    def forward(
        self,
        x: torch.Tensor,
        x_edge: torch.Tensor,
        edge_distance: torch.Tensor,
        edge_index: torch.Tensor,
        wigner_inv: Any,
        node_offset: int = 0,
    ) -> torch.Tensor:
        of_zero = self.rad_func(x_edge).unflatten(1, (-1, self.sphere_channels))
        target = edge_index[1] - node_offset
        if isinstance(wigner_inv, EdgeFrames):
            sums = out_of_frames([of_zero.contiguous()], None, target, len(x), wigner_inv)
            return x + sums.to(x.dtype) / self.rescale_factor
        messages = torch.bmm(wigner_inv[:, :, : of_zero.shape[1]], of_zero)
        return x.index_add(0, target, messages.to(x.dtype), alpha=1 / self.rescale_factor)


class FastGridAtomwise(FastForm, GridAtomwise):
    """fairchem's ``GridAtomwise``: its first and last layer have no bias, so they act on
    coefficients, which are fewer than the points of the grid."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, _, middle, _, last = self.grid_mlp
        to_grid, from_grid = grid_matrices(self.SO3_grid["lmax_lmax"], x.device)
        on_grid = torch.nn.functional.silu(to_grid @ first(x))
        on_grid = torch.nn.functional.silu(middle(on_grid))
        return last(from_grid.t() @ on_grid)


class FasteSENLinear(FastForm, SO3_Linear):  # noqa: N801 (fairchem's spelling)
    """fairchem's ``SO3_Linear``, one product for each degree, for direct forces."""

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        return not getattr(model, "gradient_forces", False)

    def forward(self, input_embedding: torch.Tensor) -> torch.Tensor:
        return so3_linear(self, input_embedding)
