"""Equiformer with DeNS, as the paper trains it on MD17: forces are gradients of the energy."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from e3nn import o3
from fairchem.core.common import gp_utils
from fairchem.core.models.base import GraphModelMixin
from torch_geometric.nn.models.visnet import ExpNormalSmearing

from dens_ocp.dens.force_encoding import checked_scale, force_coefficients
from dens_ocp.dens.step_plan import read
from dens_ocp.errors import DensError
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.models.equiformer.block import (
    AtomEmbedding,
    EdgeDegreeEmbedding,
    Edges,
    EquiformerBlock,
    GraphAttention,
    dropout_of,
    norm_of,
    summed_into,
)
from dens_ocp.models.equiformer.irreps import Gate, IrrepsLinear
from dens_ocp.models.equiformer.options import EquiformerOptions, options_of
from dens_ocp.models.equiformer.tensor_products import DepthwiseTensorProduct
from dens_ocp.models.parameter_names import translate

if TYPE_CHECKING:
    from torch_geometric.data import Batch

AVERAGE_NUM_ATOMS = 18.03065905448718
"""Atoms of a molecule in QM9; the authors use it for MD17 too."""


class EquiformerDeNS(DenoisingModel, GraphModelMixin):
    """``model: name: equiformer_dens``: Equiformer (Liao and Smidt, ICLR 2023), energy and forces.

    Energy: a readout of the scalars of all atoms, summed. Forces: minus its gradient with respect
    to the positions, the corrupted ones in training; they can be differentiated again. Noise: one
    more graph attention block, its l = 1 output. Force encoding (Eq. 5) is added to the initial
    node features.

    The defaults are the paper's model with Lmax = 2 (4,000,577 parameters). It computes in the
    precision of its parameters, whatever ``--amp`` says, and does not know graph parallelism.
    """

    gradient_forces = True
    section = EquiformerOptions

    def __init__(self, **options: Any) -> None:
        """
        Args:
            options: those of :class:`~dens_ocp.models.equiformer.options.EquiformerOptions`.

        Raises:
            DensError: unknown option, or a value that this model does not know.
        """
        o = options_of(options)
        super().__init__()
        embedding, edge, feature = (
            o3.Irreps(each) for each in (o.irreps_node_embedding, o.irreps_sh, o.irreps_feature)
        )
        scalars = o3.Irreps([(feature.count("0e"), "0e")])
        radial = [o.number_of_basis, *o.fc_neurons]
        attention = {
            "radial": radial,
            "irreps_pre_attn": o3.Irreps(o.irreps_pre_attn or embedding),
            "irreps_head": o3.Irreps(o.irreps_head),
            "num_heads": o.num_heads,
            "use_attention": o.use_attention,
            "alpha_drop": o.alpha_drop,
            "proj_drop": o.proj_drop,
        }
        self.cutoff, self.max_neighbors, self.use_pbc = o.max_radius, o.max_neighbors, o.use_pbc
        self.use_pbc_single, self.otf_graph = False, o.otf_graph
        self.use_force_encoding = o.use_force_encoding
        self.force_encoding_scale = checked_scale(o.force_encoding_scale)
        self.use_denoising_energy = o.use_denoising_energy
        self.can_denoise = o.use_noise_head
        self.degrees = [ir.l for _, ir in edge]

        # in the authors' order of parameters
        self.max_num_elements = o.max_num_elements
        self.atom_embed = AtomEmbedding(embedding, o.max_num_elements)
        self.rbf = ExpNormalSmearing(o.max_radius, o.number_of_basis, trainable=False)
        self.edge_deg_embed = EdgeDegreeEmbedding(embedding, edge, radial)
        self.force_embedding = IrrepsLinear(edge, embedding) if o.use_noise_head else None
        self.blocks = torch.nn.ModuleList(
            EquiformerBlock(
                embedding,
                edge,
                embedding if index < o.num_layers - 1 else feature,
                irreps_mlp_mid=o3.Irreps(o.irreps_mlp_mid),
                norm_layer=o.norm_layer,
                drop_path_rate=o.drop_path_rate,
                **attention,
            )
            for index in range(o.num_layers)
        )
        self.norm = norm_of(feature, o.norm_layer)
        self.out_dropout = dropout_of(feature, o.out_drop)
        self.energy_head = torch.nn.Sequential(
            IrrepsLinear(feature, scalars),
            Gate(scalars),
            IrrepsLinear(scalars, "1x0e"),
        )
        self.noise_head = None
        if o.use_noise_head:
            self.noise_head = GraphAttention(feature, edge, o3.Irreps("1x1e"), **attention)
        if o.weight_init != "normal":
            for module in self.modules():
                if isinstance(module, (IrrepsLinear, DepthwiseTensorProduct)):
                    module.reset_parameters(o.weight_init)
        self._register_load_state_dict_pre_hook(translate)

    # ---- forward ---------------------------------------------------------------------------

    def predict(self, data: Batch) -> dict[str, torch.Tensor]:
        """The original task; gradients are computed under ``torch.no_grad`` too.

        Returns:
            ``energy`` (B,) and ``forces`` (N, 3), normalised, detached.
        """
        outputs, _, _ = self._original_task(data, None, create_graph=False)
        return {name: value.detach() for name, value in outputs.items()}

    def denoise(self, data: Batch) -> dict[str, torch.Tensor]:
        """Energy, forces and noise of a batch, parts of which may be corrupted.

        Returns:
            ``energy`` (B,) and ``forces`` (N, 3), normalised: minus the gradient with respect to
            ``data.pos``, of all atoms; with a noise head ``noise`` (N, 3) in units of sigma, of all
            atoms.
        """
        coefficients = None
        if self.can_denoise:
            forces = data.forces if "forces" in data else torch.zeros_like(data.pos)
            encoded = read(data).noise_mask & self.use_force_encoding
            coefficients = force_coefficients(
                forces.to(data.pos.dtype), encoded, max(self.degrees), self.force_encoding_scale
            )[..., 0]
        outputs, features, edges = self._original_task(data, coefficients, create_graph=True)
        if self.noise_head is not None:
            with torch.autocast(data.pos.device.type, enabled=False):
                outputs["noise"] = self.noise_head(features, edges)
        return outputs

    def _original_task(
        self, data: Batch, coefficients: torch.Tensor | None, create_graph: bool
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor, Edges]:
        """Energy and forces; features of the atoms; the graph.

        Args:
            data: the batch; it is not changed.
            coefficients: (N, (lmax + 1)^2) of the encoded forces, or None.
            create_graph: forces can be differentiated.
        """
        with torch.enable_grad(), torch.autocast(data.pos.device.type, enabled=False):
            pos = data.pos if data.pos.requires_grad else data.pos.detach().requires_grad_(True)
            edges = self._edges(data, pos)
            features = self._features(data, edges, coefficients)
            energy = summed_into(data.batch, self.energy_head(features), data.natoms.numel())
            energy = energy[:, 0] / math.sqrt(AVERAGE_NUM_ATOMS)
            (gradient,) = torch.autograd.grad(energy.sum(), pos, create_graph=create_graph)
        return {"energy": energy, "forces": -gradient}, features, edges

    def _edges(self, data: Batch, pos: torch.Tensor) -> Edges:
        if gp_utils.initialized():
            raise DensError("equiformer_dens does not support graph parallelism; remove --gp-gpus")
        if self.use_pbc:
            moved = copy.copy(data)
            moved.pos = pos
            graph = self.generate_graph(moved)
            (source, target), vectors = graph.edge_index, graph.edge_distance_vec
        else:
            source, target = radius_graph(pos, data.natoms, self.cutoff)
            vectors = pos[source] - pos[target]
        harmonics = o3.spherical_harmonics(
            self.degrees, vectors, normalize=True, normalization="component"
        )
        return Edges(source, target, harmonics, self.rbf(vectors.norm(dim=1)))

    def _features(
        self, data: Batch, edges: Edges, coefficients: torch.Tensor | None
    ) -> torch.Tensor:
        features = self.atom_embed(data.atomic_numbers.long())
        features = features + self.edge_deg_embed(edges, len(features))
        if self.force_embedding is not None:
            if coefficients is None:
                coefficients = features.new_zeros(len(features), self.force_embedding.irreps_in.dim)
            features = features + self.force_embedding(coefficients)
        for block in self.blocks:
            features = block(features, edges, data.batch)
        return self.out_dropout(self.norm(features))

    # ---- parameters ------------------------------------------------------------------------

    @torch.jit.ignore
    def no_weight_decay(self) -> list[str]:
        """Biases and normalisations, by name. The number of axes says nothing here: weights of
        tensor products and linear maps have one (the authors' ``optim_factory.py``)."""
        layer_norms = {
            f"{name}.weight"
            for name, module in self.named_modules()
            if isinstance(module, torch.nn.LayerNorm)
        }
        return [
            name
            for name, _ in self.named_parameters()
            if name in layer_norms
            or ".bias." in name
            or name.endswith((".bias", ".affine_weight", ".affine_bias"))
        ]


def radius_graph(pos: torch.Tensor, natoms: torch.Tensor, cutoff: float) -> torch.Tensor:
    """All pairs of atoms of one structure that are at most ``cutoff`` apart, both ways.

    fairchem's graph without a box needs torch-cluster, which it does not install. Memory grows with
    the sum of the squares of ``natoms``.

    Args:
        pos: (N, 3) Angstrom, structure after structure.
        natoms: (B,) int, atoms of each structure.
        cutoff: Angstrom.

    Returns:
        (2, E) int: source, target.

    >>> pos = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> radius_graph(pos, torch.tensor([2, 1]), 5.0).tolist()
    [[1, 0], [0, 1]]
    """
    natoms = natoms.to(pos.device)
    pairs = natoms**2
    first = (natoms.cumsum(0) - natoms).repeat_interleave(pairs)
    size = natoms.repeat_interleave(pairs)
    number = torch.arange(len(first), device=pos.device)
    number = number - (pairs.cumsum(0) - pairs).repeat_interleave(pairs)
    target, source = first + number // size, first + number % size
    distances = (pos[source] - pos[target]).detach().norm(dim=1)
    return torch.stack([source, target])[:, (distances <= cutoff) & (source != target)]
