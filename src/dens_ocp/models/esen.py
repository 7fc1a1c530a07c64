"""eSEN with DeNS: fairchem's backbone and heads, force encoding, a noise head; forces of a head, or
minus the gradient of the energy."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.common import gp_utils
from fairchem.core.common.utils import cg_change_mat
from fairchem.core.models.esen.esen import (
    Linear_Force_Head,
    MLP_Energy_Head,
    eSEN_Backbone,
)

from dens_ocp.errors import DensError
from dens_ocp.models import precision
from dens_ocp.models.dens_model import DeNSModel
from dens_ocp.models.fast.esen import FastEdgewise, rotations

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from torch_geometric.data import Batch


class ChosenAtomsHead(Linear_Force_Head):
    """fairchem's ``Linear_Force_Head``: one linear map of the node embedding, in float32.

    It costs less than picking atoms, so it is computed for all, and set to zero for the others.
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
        nodes = emb["node_embedding"]
        with torch.autocast(nodes.device.type, enabled=False):
            whole = {**emb, "node_embedding": nodes.to(self.linear.weight.dtype)}
            vectors = super().forward(data, whole)["forces"]
        return {"forces": vectors if atoms is None else torch.where(atoms[:, None], vectors, 0.0)}


class eSENDeNS(DeNSModel, eSEN_Backbone):  # noqa: N801 (fairchem's spelling)
    """``model: name: esen_dens``, with the options of fairchem's ``esen_backbone``.

    The noise head is a second linear map of the node embedding, as the force head is. Parameters
    of fairchem's ``esen_backbone_dens`` and its heads are read by name.

    Options: those of fairchem's ``eSEN_Backbone`` and of
    :class:`~dens_ocp.models.dens_model.DeNSModel`. Example::

        model:
          name: esen_dens
          num_layers: 10
          lmax: 3
          mmax: 2
          cutoff: 6.0
          act_type: gate
          mlp_type: spectral
          use_envelope: True
          forces: direct            # or gradient
    """

    why_direct = ""

    def __init__(
        self,
        *,
        forces: str | None = None,
        new_energy_head: bool = False,
        otf_graph: bool = True,
        direct_forces: bool | None = None,
        regress_stress: bool = False,
        **options: Any,
    ) -> None:
        """
        Args:
            forces: ``direct`` (the default): from a head. ``gradient``: minus the gradient of the
                energy, in float32 also with ``--amp``; the fast path then leaves out what cannot be
                differentiated twice.
            new_energy_head: with ``forces: gradient``, in a run that starts from a checkpoint with
                direct forces: do not take over its energy head.
            otf_graph: only True: edges must be those of the corrupted positions.
            direct_forces: fairchem-core's spelling; False means ``forces: gradient``.
            regress_stress: with ``forces: gradient``, also predict the stress (eV/Angstrom^3,
                before normalisation), the gradient with respect to a strain divided by the volume,
                (B, 9). A direct stress is one of ``heads``.
            options: see the class.

        Raises:
            DensError: unknown option, or a value that this model does not know.
        """
        forces = _spelled(forces, direct_forces)
        if not otf_graph:
            raise DensError(
                "model.otf_graph: False: edges stored in the records belong to the positions "
                "before atoms are moved; set it to True"
            )
        if regress_stress and forces != "gradient":
            raise DensError(
                "model.regress_stress: True: with direct forces the stress is a separate head; "
                "use model.heads: {stress: {module: esen_rank2_head, output_name: stress, "
                "decompose: True}}, or forces: gradient"
            )
        if regress_stress and not options.get("use_pbc", True):
            raise DensError(
                "model.regress_stress: True: a structure without periodic boundaries "
                "(model.use_pbc: False) has no stress; remove one of the two options"
            )
        with warnings.catch_warnings():  # of fairchem's own table of Wigner matrices
            warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
            super().__init__(
                forces=forces,
                otf_graph=True,
                direct_forces=forces != "gradient",
                regress_stress=regress_stress,
                **options,
            )
        self.new_energy_head = new_energy_head

    @classmethod
    def has_gradient_forces(cls, options: Mapping[str, Any]) -> bool:
        return _spelled(options.get("forces"), options.get("direct_forces")) == "gradient"

    @property
    def max_degree(self) -> int:
        return self.lmax

    # ---- modules ---------------------------------------------------------------------------

    def build_heads(self) -> None:
        self.energy_head = MLP_Energy_Head(self)
        self.energy_head.energy_block.register_forward_hook(precision.output_in_float32)
        self.force_head = None if self.gradient_forces else ChosenAtomsHead(self)

    def build_noise_head(self) -> None:
        self.noise_head = ChosenAtomsHead(self)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """fairchem's, and the bias of the force encoding, which is a linear layer too."""
        ours = () if self.force_embedding is None else ("force_embedding.bias",)
        return {*super().no_weight_decay(), *ours}

    def replaces_heads(self, names: Collection[str]) -> bool:
        return self.gradient_forces and any(name.startswith("force_head.") for name in names)

    def start_from(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Of a model with direct forces, if these are gradients: without the heads of forces and of
        further outputs and, with ``new_energy_head``, without that of the energy."""
        started = super().start_from(state)
        if not self.replaces_heads(started):
            return started
        own = set(self.state_dict())
        energy = "energy_head." if self.new_energy_head else "force_head."
        return {
            name: value
            for name, value in started.items()
            if not name.startswith(("force_head.", energy))
            and (name in own or not name.startswith("heads."))
        }

    # ---- forward ---------------------------------------------------------------------------

    def injected(self, embedding: torch.Tensor) -> RemovableHandle:
        """The embedding of the elements gets larger before the edges' degrees are added to it."""

        def hook(_module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            return (args[0] + embedding, *args[1:])

        return self.edge_degree_embedding.register_forward_pre_hook(hook)

    def generate_graph(self, data: Batch, *args: Any, **options: Any) -> dict[str, Any]:
        graph = super().generate_graph(data, *args, **options)
        return graph if isinstance(graph, dict) else dict(vars(graph))  # of a pair of lone atoms

    def get_rotmat_and_wigner(
        self, edge_distance_vecs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """fairchem's, in the precision of the positions; with ``fast`` only what the blocks need of
        the matrices (:func:`dens_ocp.models.fast.esen.rotations`)."""
        with torch.autocast(edge_distance_vecs.device.type, enabled=False):
            rotation, there, back = super().get_rotmat_and_wigner(edge_distance_vecs)
            block = self.blocks[0].edge_wise
            if isinstance(block, FastEdgewise):
                lengths = torch.linalg.norm(edge_distance_vecs, dim=-1)
                there, back = rotations(there, back, block, lengths)
        return rotation, there, back

    def predict(self, data: Batch) -> dict[str, torch.Tensor]:
        """As :class:`DeNSModel`; gradients are computed under ``torch.no_grad`` too."""
        outputs = super().predict(data)
        if not self.gradient_forces:
            return outputs
        return {name: value.detach() for name, value in outputs.items()}

    def _backbone(
        self, data: Batch, embedding: torch.Tensor | None, sigmas: torch.Tensor
    ) -> dict[str, Any]:
        if gp_utils.initialized():
            raise DensError("esen_dens does not support graph parallelism; remove --gp-gpus")
        own = copy.copy(data)  # fairchem's forward writes into it
        if not self.gradient_forces:
            return super()._backbone(own, embedding, sigmas)
        own.pos = data.pos.detach()
        with torch.autocast(data.pos.device.type, enabled=False):
            emb = super()._backbone(own, embedding, sigmas)
        return {**emb, "pos": own.pos}  # strained, if the stress is asked for

    def _original_task(
        self, data: Batch, emb: dict[str, Any], atoms: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        if not self.gradient_forces:
            return super()._original_task(data, emb, atoms)
        with torch.enable_grad(), torch.autocast(data.pos.device.type, enabled=False):
            energy = self.energy_head(data, emb)["energy"]
            of = [emb["pos"], emb["displacement"]] if self.regress_stress else [emb["pos"]]
            gradients = torch.autograd.grad(energy.sum(), of, create_graph=self.training)
            outputs = {"energy": energy, "forces": -gradients[0]}
            if self.regress_stress:
                volumes = torch.linalg.det(data.cell).abs()
                outputs |= _stress(gradients[1] / volumes[:, None, None])
            for head in self.heads.values():
                outputs |= head(data, emb)
        return outputs


def _spelled(forces: Any, direct_forces: Any) -> Any:
    """``model.forces``, of fairchem's spelling too."""
    other = None if direct_forces is None else "direct" if direct_forces else "gradient"
    if forces is not None and other not in (None, forces):
        raise DensError(
            f"model.forces: {forces} and model.direct_forces: {direct_forces} contradict each "
            "other; remove one of them"
        )
    return forces or other or "direct"


def _stress(whole: torch.Tensor) -> dict[str, torch.Tensor]:
    """The outputs ``stress`` (B, 9) and its two parts, in fairchem's basis, of (B, 3, 3)."""
    flat = whole.flatten(1)
    irreps = flat @ cg_change_mat(2, flat.device).to(flat.dtype).T
    return {
        "stress": flat,
        "stress_isotropic": irreps[:, :1],
        "stress_anisotropic": irreps[:, 4:9],
    }
