"""Vector heads that are computed for some atoms only.

The output of an attention block at an atom depends on the edges into that atom alone, so the edges
into other atoms can be left out: the values and gradients of the chosen rows are the same. The loss
looks at the force of some atoms, at the noise of others, and in OC20 at no fixed one.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.models.equiformer_v2.heads import EqV2VectorHead
from fairchem.core.models.equiformer_v2.so3 import SO3_Rotation
from fairchem.core.models.escn.escn import eSCNForceHead
from torch.utils.weak import TensorWeakRef, WeakIdKeyDictionary

if TYPE_CHECKING:
    from torch_geometric.data import Batch


class ExactRotation(SO3_Rotation):
    """fairchem's ``SO3_Rotation``; its matrices are not made in half precision under autocast.

    Attributes:
        mmax: largest order of the convolutions.
        wigner, wigner_inv: (E, (lmax+1)^2, (lmax+1)^2) there and back, of the last forward.
    """

    mmax: int
    wigner: torch.Tensor
    wigner_inv: torch.Tensor
    device: torch.device
    dtype: torch.dtype

    def set_wigner(self, rot_mat3x3: torch.Tensor) -> None:
        with torch.autocast(rot_mat3x3.device.type, enabled=False):
            super().set_wigner(rot_mat3x3)

    def take(self, whole: ExactRotation, edges: torch.Tensor | None) -> None:
        """The matrices of another module, of all edges or of some, (K,) int64."""
        self.device, self.dtype = whole.device, whole.dtype
        self.wigner = whole.wigner if edges is None else whole.wigner[edges]
        self.wigner_inv = whole.wigner_inv if edges is None else whole.wigner_inv[edges]


_FOUND: WeakIdKeyDictionary = WeakIdKeyDictionary()
"""Chosen atoms -> the edges they were looked for in, and what was found."""


def edges_into(atoms: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
    """The edges into chosen atoms. The first time it waits for the device; of the same tensors it
    knows the answer, so that heads do not wait for the layers.

    Args:
        atoms: (N,) bool. edge_index: (2, E) int64.

    Returns:
        (K,) int64, one edge if there is none: fairchem's SO(2) convolution cannot do without; what
        it gives is not used, but every parameter is in the graph, as DDP wants it.
    """
    known, found = _FOUND.get(atoms, (None, None))
    if known is None or known() is not edge_index:
        found = torch.nonzero(atoms[edge_index[1]])[:, 0]
        found = found if found.numel() else found.new_zeros(1)
        _FOUND[atoms] = (TensorWeakRef(edge_index), found)
    return found


class EqV2ChosenAtomsHead(EqV2VectorHead):
    """fairchem's ``EqV2VectorHead``, for all atoms or for chosen ones.

    Parameters and names are the same. The Wigner matrices are its own: those of the backbone are of
    all edges, and activation checkpointing reads them again in the backward pass.
    """

    def __init__(self, backbone: Any) -> None:
        super().__init__(backbone)
        self._whole = (backbone.SO3_rotation,)  # in a tuple: no module of the head
        self.force_block.SO3_rotation = copy.deepcopy(backbone.SO3_rotation)

    def forward(
        self, data: Batch, emb: dict[str, Any], atoms: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            data: the batch.
            emb: of the backbone.
            atoms: (N,) bool, whose vectors are wanted; None: all. Under graph parallelism of the
                whole batch.

        Returns:
            ``forces`` (N, 3); zero for other atoms.
        """
        graph, chosen = emb["graph"], None
        if atoms is not None:
            chosen = edges_into(atoms, graph.edge_index)
            graph = copy.copy(graph)
            graph.edge_index = graph.edge_index[:, chosen]
            graph.edge_distance = graph.edge_distance[chosen]
        for own, whole in zip(self.force_block.SO3_rotation, self._whole[0], strict=True):
            own.take(whole, chosen)
        vectors = super().forward(data, {**emb, "graph": graph})["forces"]
        return {"forces": vectors if atoms is None else torch.where(atoms[:, None], vectors, 0.0)}


class eSCNChosenAtomsHead(eSCNForceHead):  # noqa: N801 (fairchem's spelling)
    """fairchem's ``eSCNForceHead``, for all atoms or for chosen ones.

    A vector is the difference of values that hardly differ from point to point of the sphere; in
    half precision nothing is left of it. It is computed outside autocast.
    """

    def forward(
        self, data: Batch, emb: dict[str, Any], atoms: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            data: the batch.
            emb: of the backbone.
            atoms: (N,) bool, whose vectors are wanted; None: all.

        Returns:
            ``forces`` (N, 3); zero for other atoms.
        """
        values = emb["sphere_values"].to(data.pos.dtype)
        if atoms is None:
            return self._vectors(data, {**emb, "sphere_values": values})
        chosen = torch.nonzero(atoms)[:, 0]
        values = values.view(atoms.shape[0], -1, values.shape[-1])[chosen].flatten(0, 1)
        vectors = self._vectors(data, {**emb, "sphere_values": values})["forces"]
        whole = vectors.new_zeros(atoms.shape[0], 3)
        return {"forces": whole.index_put((chosen,), vectors)}

    def _vectors(self, data: Batch, emb: dict[str, Any]) -> dict[str, torch.Tensor]:
        with torch.autocast(data.pos.device.type, enabled=False):
            return super().forward(data, emb)
