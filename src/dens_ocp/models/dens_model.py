"""What DeNS models on a fairchem backbone share: force encoding in, noise out."""

from __future__ import annotations

import copy
import inspect
import logging
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from dens_ocp.dens import force_encoding
from dens_ocp.dens.force_encoding import ForceEncoding, checked_scale
from dens_ocp.dens.step_plan import read, read_plan
from dens_ocp.errors import DensError, nearest
from dens_ocp.models import extra_heads, lone_atoms
from dens_ocp.models.checkpoint_states import without_dens
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.models.fast import choice, switch
from dens_ocp.models.fast.rotation import spherical_harmonics
from dens_ocp.models.parameter_names import translate

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from torch_geometric.data import Batch


class DeNSModel(DenoisingModel):
    """Mixin in front of a fairchem backbone class.

    A subclass sets ``energy_head`` (fairchem's), ``force_head`` and ``noise_head`` (which compute
    chosen atoms, :mod:`dens_ocp.models.chosen_atoms`), and says with :meth:`injected` where an
    embedding is added.

    A vector is computed only where it is looked at: with ``scored`` in the batch the force head for
    scored atoms that are not corrupted, the noise head for scored ones that are.

    In training all three heads are computed, in evaluation the noise head is not.
    """

    force_embedding: ForceEncoding | None
    noise_schedule_sigma_embedding: torch.nn.Linear | None
    noise_head: torch.nn.Module | None
    form_is_open: bool
    """``fast: auto``, and nobody has chosen the form for the device at hand yet."""
    why_direct = (
        "fairchem's backbone excludes the rotations of edges from the derivatives, turns edges "
        "by random angles on which its energy depends slightly, and lets neighbours enter and "
        "leave the cutoff without an envelope, so the gradient of its energy is not a force; use "
        "esen_dens or equiformer_dens"
    )
    """Why forces cannot be gradients; empty where they can."""

    def __init__(
        self,
        *,
        use_force_encoding: bool = True,
        force_encoding_scale: float = 1.0,
        use_noise_schedule_sigma_encoding: bool = False,
        use_denoising_energy: bool = True,
        use_denoising_stress: bool = True,
        use_noise_head: bool = True,
        forces: str = "direct",
        heads: Mapping[str, Any] | None = None,
        fast: bool | str = "auto",
        **backbone_options: Any,
    ) -> None:
        """Build the backbone and the force encoding.

        Args:
            use_force_encoding: False: forces are never encoded (an ablation).
            force_encoding_scale: factor of encoded forces (eV/Angstrom); 23.060548 gives
                kcal/mol/Angstrom.
            use_noise_schedule_sigma_encoding: encode the atom's sigma (Angstrom; 0 for uncorrupted
                atoms): a linear map of it is added to the l = 0 part of the embedding.
            use_denoising_energy: False: no energy loss on DeNS structures (an ablation); the same
                as ``optim.dens.energy``.
            use_denoising_stress: False: no stress loss on DeNS structures; the same as
                ``optim.dens.stress``.
            use_noise_head: False: no noise head and no force encoding, for
                ``optim.dens.enabled: false``. A checkpoint with DeNS can be the start.
            forces: ``direct``: from a head. ``gradient``: minus the gradient of the energy, where
                the backbone allows it.
            heads: further outputs, by name: ``module``, a head of fairchem-core, and its options.
            fast: True: the fast path (the backbone in another order: the same numbers to rounding,
                with less time and memory). False: the stock path. ``auto``: True on a CPU; on a GPU
                the first batch is computed on both paths, and the faster one is used.
            backbone_options: the fairchem backbone's own options.

        Raises:
            DensError: unknown option, or one that DeNS cannot work with.
        """
        _check_options(type(self), backbone_options)
        if fast not in (True, False, "auto"):
            raise DensError(f"model.fast: {fast!r} must be True, False or auto")
        _check_forces(forces, self.why_direct)
        super().__init__(**backbone_options)
        self.gradient_forces = forces == "gradient"
        self.use_force_encoding = use_force_encoding
        self.force_encoding_scale = checked_scale(force_encoding_scale)
        self.use_denoising_energy = use_denoising_energy
        self.use_denoising_stress = use_denoising_stress
        self.can_denoise = use_noise_head
        # parameters are created in the authors' order (heads of the original task first): an
        # averaged model (EMA) is stored as a list in this order
        self.build_heads()
        self.force_embedding = self.noise_schedule_sigma_embedding = self.noise_head = None
        if use_noise_head:
            self.force_embedding = ForceEncoding(
                self.sphere_channels, self.max_degree, self.force_encoding_scale
            )
            if use_noise_schedule_sigma_encoding:
                self.noise_schedule_sigma_embedding = torch.nn.Linear(1, self.sphere_channels)
            self.build_noise_head()
        self.heads = extra_heads.build(self, heads)
        self._register_load_state_dict_pre_hook(partial(translate, heads=tuple(self.heads)))
        self.form_is_open = fast == "auto"
        if fast:
            self.take_form(True)

    def take_form(self, fast: bool) -> None:
        """Evaluate the backbone in the fast form or in fairchem's, from the next batch on."""
        (switch.make_fast if fast else switch.make_stock)(self)
        if self.force_embedding is not None:
            self.force_embedding.harmonics = (
                spherical_harmonics if fast else force_encoding.spherical_harmonics
            )

    def start_from(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Without a noise head: :func:`~dens_ocp.models.checkpoint_states.without_dens`."""
        return dict(state) if self.can_denoise else without_dens(state)

    @property
    def max_degree(self) -> int:
        """Largest degree l of the node embedding."""
        return max(self.lmax_list)

    @abstractmethod
    def build_heads(self) -> None:
        """Set ``energy_head`` and ``force_head``."""

    @abstractmethod
    def build_noise_head(self) -> None:
        """Set ``noise_head`` and initialise the DeNS modules."""

    @abstractmethod
    def injected(self, embedding: torch.Tensor) -> RemovableHandle:
        """Make the backbone's initial node embedding larger by ``embedding`` (N, (lmax + 1)^2, C),
        of all N atoms of the batch, until the hook is removed.

        It has to lie outside the blocks that activation checkpointing recomputes, and to add to a
        new tensor, never in place.
        """

    def forward(self, data: Batch) -> dict[str, torch.Tensor]:
        """As :class:`DenoisingModel`; also of a batch in which no atom has a neighbour.

        In evaluation the first batch on a GPU settles ``fast: auto`` (in training
        :mod:`dens_ocp.training.form_choice` does, whose choice this model then keeps).
        """
        if not self.training and choice.is_timed(self, data.pos.device):
            self._choose_form(data)
        try:
            return super().forward(data)
        except lone_atoms.NoEdgesError:
            outputs = super().forward(lone_atoms.with_pair(data))
        return lone_atoms.without_pair(outputs, data)

    @torch.no_grad()
    def _choose_form(self, data: Batch) -> None:
        self.form_is_open = False
        fast, stock = choice.seconds(self, lambda: self(copy.copy(data)), data.pos.device)
        self.take_form(fast <= stock)
        logging.info(choice.said(fast, stock))

    def generate_graph(self, data: Batch, *args: Any, **options: Any) -> Any:
        """fairchem's, in the precision of the positions.

        Under autocast the displacements of periodic images are products in half precision: of a
        cell of 10 Angstrom they are off by 0.03 Angstrom in bfloat16, and forces by 30 %.

        Raises:
            NoEdgesError: it has no edge.
        """
        if lone_atoms.has_pair(data):
            return lone_atoms.graph_of_pair(data)
        with torch.autocast(data.pos.device.type, enabled=False):
            graph = super().generate_graph(data, *args, **options)  # type: ignore[misc]
        edges = graph["edge_index"] if isinstance(graph, dict) else graph.edge_index
        if edges.shape[1] == 0:
            raise lone_atoms.NoEdgesError
        return graph

    def _init_edge_rot_mat(
        self, data: Batch, edge_index: torch.Tensor, edge_distance_vec: torch.Tensor
    ) -> torch.Tensor:
        """fairchem's, likewise."""
        with torch.autocast(data.pos.device.type, enabled=False):
            frames = super()._init_edge_rot_mat  # type: ignore[misc]
            return frames(data, edge_index, edge_distance_vec)

    def predict(self, data: Batch) -> dict[str, torch.Tensor]:
        """The original task.

        Returns:
            ``energy`` (B,) and ``forces`` (N, 3), normalised; these are zero but for the
            ``force_atoms`` of the batch's plan.
        """
        return self._without_corruption(data)

    def _without_corruption(self, data: Batch) -> dict[str, torch.Tensor]:
        embedding = None
        if self.force_embedding is not None:
            embedding = self.force_embedding.without_forces(data.pos.shape[0])
        emb = self._backbone(data, embedding, data.pos.new_zeros(data.pos.shape[0], 1))
        return self._original_task(data, emb, read_plan(data).force_atoms)

    def denoise(self, data: Batch) -> dict[str, torch.Tensor]:
        """Energy, forces and noise of a batch, parts of which may be corrupted.

        Returns:
            ``energy`` (B,) and ``forces`` (N, 3), normalised; ``noise`` (N, 3) in units of sigma.
            ``forces`` are zero but for the ``force_atoms`` of the batch's plan, ``noise`` but for
            its ``noise_atoms``. Without a noise head there is none.
        """
        if self.force_embedding is None or self.noise_head is None:
            return self._without_corruption(data)
        plan, corruption = read_plan(data), read(data)
        encoded = corruption.noise_mask & self.use_force_encoding
        forces = data.forces if "forces" in data else torch.zeros_like(data.pos)
        embedding = self.force_embedding(forces.to(data.pos.dtype), encoded)
        emb = self._backbone(data, embedding, corruption.sigmas)
        outputs = self._original_task(data, emb, plan.force_atoms)
        return {**outputs, "noise": self.noise_head(data, emb, plan.noise_atoms)["forces"]}

    def _backbone(
        self, data: Batch, embedding: torch.Tensor | None, sigmas: torch.Tensor
    ) -> dict[str, Any]:
        """What heads stand on; ``embedding`` (N, (lmax + 1)^2, C) is added to the initial one."""
        if embedding is None:
            return super(DenoisingModel, self).forward(data)
        if self.noise_schedule_sigma_embedding is not None:
            scalars = self.noise_schedule_sigma_embedding(sigmas)[:, None, :]
            embedding = torch.cat([embedding[:, :1] + scalars, embedding[:, 1:]], dim=1)
        with self.injected(embedding):
            return super(DenoisingModel, self).forward(data)  # the backbone's

    def _original_task(
        self, data: Batch, emb: dict[str, Any], atoms: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        # in this order: gradients are added up in the reverse one, to the last bit
        forces = self.force_head(data, emb, atoms)["forces"]
        outputs = {**self.energy_head(data, emb), "forces": forces}
        for head in self.heads.values():
            outputs |= head(data, emb)
        return outputs


FORCES = ("direct", "gradient")


def _check_forces(forces: Any, why_direct: str) -> None:
    if forces not in FORCES:
        raise DensError(
            f"model.forces: {forces!r} is not known{nearest(str(forces), FORCES)}; the choices "
            f"are {', '.join(FORCES)}"
        )
    if forces == "gradient" and why_direct:
        raise DensError(f"model.forces: gradient: {why_direct}")


def _check_options(cls: type, options: dict[str, Any]) -> None:
    backbone = next(
        base
        for base in cls.__mro__
        if base.__module__.startswith("fairchem.") and "__init__" in vars(base)
    )
    known = {
        name
        for each in (backbone, DeNSModel, cls)
        for name in inspect.signature(each).parameters
        if name not in ("options", "backbone_options")
    }
    for name in options:
        if name not in known:
            raise DensError(f"unknown option model.{name}{nearest(name, known)}")
    if not options.get("regress_forces", True):
        raise DensError(
            "model.regress_forces: False: DeNS needs a model that predicts forces; remove the "
            "option"
        )
    if len(options.get("lmax_list") or [6]) != 1:
        raise DensError(
            f"model.lmax_list: {options['lmax_list']} has several resolutions, but force "
            "encoding is defined for one; give for example [6]"
        )
