"""Outputs beside energy and forces: heads of fairchem's on the backbone of a DeNS model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from e3nn import o3
from fairchem.core.common import gp_utils
from fairchem.core.common.registry import registry
from fairchem.core.models.equiformer_v2.heads.rank2 import Rank2SymmetricTensorHead
from fairchem.core.models.esen.nn.rank2 import (
    Rank2SymmetricTensorHead as eSENRank2SymmetricTensorHead,
)
from torch_geometric.utils import scatter

from dens_ocp.errors import DensError, nearest

if TYPE_CHECKING:
    from torch_geometric.data import Batch


class Rank2Form(torch.nn.Module):
    """First base of fairchem's heads of a symmetric tensor (stress): their parameters and numbers.

    Their forward is written anew: fairchem's fails where the last atom has no neighbour, and where
    a batch has one edge, and it averages over atoms in half precision under autocast.

    fairchem's tensor is not equivariant: the layers of its MLP have biases and SiLU, which act on
    each of the five components by itself, so the stress of a turned crystal is not the turned
    stress. Published checkpoints need it as it is. ``equivariant: True`` makes the MLP one of
    linear maps without biases, with SiLU's place taken by a factor between 1/2 and 1 that grows
    with the tensor's norm.
    """

    def __init__(
        self, backbone: Any, *args: Any, equivariant: bool = False, **options: Any
    ) -> None:
        """
        Args:
            backbone: fairchem's.
            equivariant: see the class.
            args, options: of fairchem's ``Rank2SymmetricTensorHead``.
        """
        super().__init__(backbone, *args, **options)
        self.equivariant = equivariant
        if equivariant:
            for layer in self._tensor_mlp:
                if isinstance(layer, torch.nn.Linear):
                    layer.register_parameter("bias", None)

    @property
    def _tensor_mlp(self) -> torch.nn.Sequential:
        return self.block.irrep2_MLP if self.decompose else self.block.r2tensor_MLP

    def _of_tensors(self, values: torch.Tensor) -> torch.Tensor:
        """The MLP of (..., components, channels)."""
        if not self.equivariant:
            return self._tensor_mlp(values)
        for layer in self._tensor_mlp:
            if isinstance(layer, torch.nn.Linear):
                values = layer(values)
            else:
                values = values * torch.sigmoid(values.square().mean(dim=-2, keepdim=True))
        return values

    def forward(self, data: Batch, emb: dict[str, Any]) -> dict[str, torch.Tensor]:
        """
        Args:
            data: the batch, of B structures.
            emb: of the backbone, ``node_embedding`` and ``graph``.

        Returns:
            With ``decompose``: ``<name>_isotropic`` (B, 1) and ``<name>_anisotropic`` (B, 5), of
            degree 0 and 2 in fairchem's basis; else ``<name>`` (B, 9), where fairchem has
            (3 B, 3). Normalised.
        """
        nodes, edge_index, vectors = self._parts(emb)
        features = self._edge_features(nodes, edge_index, vectors)
        directions = self._directions(vectors)  # (E, 5) or (E, 9)
        parts: list[tuple[Callable, torch.Tensor]] = [(self._of_tensors, directions)]
        if self.decompose:
            parts.insert(0, (self.block.scalar_MLP, torch.ones_like(directions[:, :1])))
        tensors = [
            self._of_structures(mlp, features[:, None, :] * each[:, :, None], edge_index, data)
            for mlp, each in parts
        ]
        if not self.decompose:
            return {self.output_name: tensors[0]}
        scale = 1 / self.avg_num_nodes if self.block.extensive else 1
        names = (f"{self.output_name}_isotropic", f"{self.output_name}_anisotropic")
        return {name: each * scale for name, each in zip(names, tensors, strict=True)}

    def _parts(self, emb: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the backbone's output: (N, (lmax + 1)^2, C) node embedding, (2, E) edges, (E, 3) their
        vectors."""
        graph = emb["graph"]
        return emb["node_embedding"].embedding, graph.edge_index, graph.edge_distance_vec

    def _edge_features(
        self, nodes: torch.Tensor, edge_index: torch.Tensor, vectors: torch.Tensor
    ) -> torch.Tensor:
        """(E, channels): embeddings of the ends of an edge in its direction."""
        degrees = list(range(math.isqrt(nodes.shape[1])))
        with torch.autocast(nodes.device.type, enabled=False):
            along = o3.spherical_harmonics(degrees, vectors, False).detach()
            along = self.sphharm_norm(along[:, :, None])  # (E, (lmax + 1)^2, 1)
        ends = edge_index if self.use_source_target_embedding else edge_index[1:]
        found = [torch.einsum("elc,el->ec", nodes[each], along[:, :, 0]) for each in ends]
        return self.xedge_layer_norm(torch.cat(found, dim=1))

    def _directions(self, vectors: torch.Tensor) -> torch.Tensor:
        if self.decompose:
            return o3.spherical_harmonics(2, vectors, True).detach()
        return (vectors[:, :, None] * vectors[:, None, :]).flatten(1)

    def _of_structures(
        self, mlp: Callable, values: torch.Tensor, edge_index: torch.Tensor, data: Batch
    ) -> torch.Tensor:
        """(B, k) of (E, k, channels): mean over the edges into an atom, over atoms, ``mlp`` between
        or before."""
        if self.block.edge_level:
            values = mlp(values)
        atoms = scatter(values, edge_index[1], dim=0, dim_size=data.pos.shape[0], reduce="mean")
        if not self.block.edge_level:
            atoms = mlp(atoms)
        of_atoms = atoms[:, :, 0].to(torch.promote_types(atoms.dtype, torch.float32))
        reduce = "sum" if self.block.extensive else "mean"
        return scatter(of_atoms, data.batch, dim=0, dim_size=data.natoms.numel(), reduce=reduce)


class Rank2Head(Rank2Form, Rank2SymmetricTensorHead):
    """EquiformerV2's and eSCN's: ``module: rank2_symmetric_head``."""


class eSENRank2Head(Rank2Form, eSENRank2SymmetricTensorHead):  # noqa: N801 (fairchem's spelling)
    """eSEN's: ``module: esen_rank2_head``."""

    def _parts(self, emb: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return emb["node_embedding"], emb["edge_index"], emb["edge_distance_vec"]


RANK2 = (Rank2Head, eSENRank2Head)


def build(backbone: Any, block: Mapping[str, Mapping[str, Any]] | None) -> torch.nn.ModuleDict:
    """Heads of ``model.heads``.

    Args:
        backbone: what they stand on.
        block: name -> ``module`` (a head in fairchem's registry, or its dotted path) and options.

    Raises:
        DensError: an unknown module or option; graph parallelism, which these heads cannot do.
    """
    heads = torch.nn.ModuleDict()
    for name, options in (block or {}).items():
        where = f"model.heads.{name}"
        if gp_utils.initialized():
            raise DensError(
                f"{where}: fairchem's heads for outputs other than energy and forces do not "
                "support graph parallelism; remove --gp-gpus"
            )
        options = dict(options)
        cls = head_class(options.pop("module", None), where)
        known = _options_of(cls)
        for each in options:
            if each not in known:
                raise DensError(f"unknown option {where}.{each}{nearest(each, known)}")
        heads[name] = cls(backbone, **options)
    return heads


def head_class(module: Any, where: str) -> type[torch.nn.Module]:
    """The class of ``module``; one of :data:`RANK2` in place of fairchem's.

    Raises:
        DensError: there is none.
    """
    if module is None:
        raise DensError(f"{where}.module is missing; give for example module: rank2_symmetric_head")
    try:
        cls = registry.get_model_class(str(module))
    except (RuntimeError, KeyError, ValueError, ImportError, AttributeError) as error:
        known = [each for each in registry.mapping["model_name_mapping"] if "head" in each]
        raise DensError(
            f"{where}.module: {module} is not known{nearest(str(module), known)} ({error})"
        ) from None
    return next((ours for ours in RANK2 if issubclass(cls, ours.__mro__[2])), cls)


def _options_of(cls: type[torch.nn.Module]) -> list[str]:
    classes = cls.__mro__[:3] if cls in RANK2 else (cls,)
    names = [name for each in classes for name in inspect.signature(each.__init__).parameters]
    return [name for name in names if name not in ("self", "backbone", "args", "options")]
