"""Equiformer with DeNS, as the paper trains it on MD17: forces are gradients of the energy."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3
from fairchem.core.common import gp_utils
from fairchem.core.models.base import GraphModelMixin
from torch_geometric.nn.models.visnet import ExpNormalSmearing

from dens_ocp.dens.force_encoding import checked_scale, force_coefficients
from dens_ocp.dens.step_plan import read
from dens_ocp.errors import DensError
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.models.equiformer.block import EquiformerBlock, norm_of
from dens_ocp.models.equiformer.depthwise import DepthwiseTensorProduct
from dens_ocp.models.equiformer.embedding import AtomEmbedding, EdgeDegreeEmbedding
from dens_ocp.models.equiformer.gate import Gate
from dens_ocp.models.equiformer.graph_attention import Edges, GraphAttention, summed_into
from dens_ocp.models.equiformer.linear import IrrepsLinear
from dens_ocp.models.equiformer.options import check_options, even_irreps
from dens_ocp.models.equiformer.radius_graph import radius_graph
from dens_ocp.models.parameter_names import is_constant, translated

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

    def __init__(
        self,
        *,
        irreps_node_embedding: str = "128x0e+64x1e+32x2e",
        irreps_sh: str = "1x0e+1x1e+1x2e",
        irreps_feature: str = "512x0e+256x1e+128x2e",
        irreps_head: str = "32x0e+16x1e+8x2e",
        irreps_pre_attn: str | None = None,
        irreps_mlp_mid: str = "384x0e+192x1e+96x2e",
        num_layers: int = 6,
        num_heads: int = 4,
        number_of_basis: int = 32,
        fc_neurons: tuple[int, ...] = (64, 64),
        max_num_elements: int = 64,
        max_radius: float = 5.0,
        use_pbc: bool = False,
        max_neighbors: int = 1000,
        use_attention: bool = True,
        norm_layer: str | None = "layer",
        weight_init: str = "normal",
        alpha_drop: float = 0.0,
        proj_drop: float = 0.0,
        out_drop: float = 0.0,
        drop_path_rate: float = 0.0,
        use_noise_head: bool = True,
        use_force_encoding: bool = True,
        force_encoding_scale: float = 1.0,
        use_denoising_energy: bool = True,
        otf_graph: bool = True,
        **other: Any,
    ) -> None:
        """
        Args:
            irreps_node_embedding: features of an atom between blocks.
            irreps_sh: spherical harmonics of edges and forces, one channel of each degree.
            irreps_feature: features of an atom behind the last block.
            irreps_head: of a message in one attention head.
            irreps_pre_attn: of a message before; None: ``irreps_node_embedding``.
            irreps_mlp_mid: inside the feed-forward networks.
            num_layers: number of blocks.
            num_heads: attention heads.
            number_of_basis: radial bases, exp-normal.
            fc_neurons: hidden sizes of the functions of the distance.
            max_num_elements: atomic numbers are below it.
            max_radius: cutoff, Angstrom.
            use_pbc: neighbours across the periodic boundaries of ``cell``; False: no box.
            max_neighbors: of an atom, with ``use_pbc``; without it all within the cutoff count.
            use_attention: False: messages are summed without attention weights (Table 5).
            norm_layer: ``layer``, or None: no equivariant layer normalisation (Table 5).
            weight_init: ``normal`` or ``uniform``, of linear layers and tensor products; the paper
                takes ``uniform`` for the variant without attention and layer normalisation.
            alpha_drop: dropout of attention weights.
            proj_drop: equivariant dropout behind attention and feed-forward networks.
            out_drop: equivariant dropout behind the last normalisation.
            drop_path_rate: probability that a structure skips a residual branch.
            use_noise_head: False: no noise head and no force encoding, so no DeNS.
            use_force_encoding: False: ablation, forces are never encoded.
            force_encoding_scale: encoded forces (eV/Angstrom) are multiplied by it; 23.060548 is
                the authors' MD17 code, which encodes kcal/mol/Angstrom.
            use_denoising_energy: False: ablation, no energy loss on DeNS structures.
            otf_graph: only True; graphs are built in each forward.
            other: options of the authors' files that have one value here, see
                :func:`~dens_ocp.models.equiformer.options.check_options`.

        Raises:
            DensError: unknown option, or a value that this model does not know.
        """
        check_options(type(self), other, locals())
        super().__init__()
        embedding = even_irreps("irreps_node_embedding", irreps_node_embedding)
        edge = even_irreps("irreps_sh", irreps_sh)
        feature = even_irreps("irreps_feature", irreps_feature)
        scalars = o3.Irreps([(feature.count("0e"), "0e")])
        radial = [number_of_basis, *fc_neurons]
        attention = {
            "radial": radial,
            "irreps_pre_attn": even_irreps("irreps_pre_attn", irreps_pre_attn or str(embedding)),
            "irreps_head": even_irreps("irreps_head", irreps_head),
            "num_heads": num_heads,
            "use_attention": use_attention,
            "alpha_drop": alpha_drop,
            "proj_drop": proj_drop,
        }
        self.cutoff, self.max_neighbors, self.use_pbc = max_radius, max_neighbors, use_pbc
        self.use_pbc_single, self.otf_graph = False, otf_graph
        self.use_force_encoding = use_force_encoding
        self.force_encoding_scale = checked_scale(force_encoding_scale)
        self.use_denoising_energy = use_denoising_energy
        self.can_denoise = use_noise_head
        self.degrees = [ir.l for _, ir in edge]

        # in the authors' order of parameters
        self.max_num_elements = max_num_elements
        self.atom_embed = AtomEmbedding(embedding, max_num_elements)
        self.rbf = ExpNormalSmearing(max_radius, number_of_basis, trainable=False)
        self.edge_deg_embed = EdgeDegreeEmbedding(embedding, edge, radial)
        self.force_embedding = IrrepsLinear(edge, embedding) if use_noise_head else None
        self.blocks = torch.nn.ModuleList(
            EquiformerBlock(
                embedding,
                edge,
                embedding if index < num_layers - 1 else feature,
                irreps_mlp_mid=even_irreps("irreps_mlp_mid", irreps_mlp_mid),
                norm_layer=norm_layer,
                drop_path_rate=drop_path_rate,
                **attention,
            )
            for index in range(num_layers)
        )
        self.norm = norm_of(feature, norm_layer)
        self.out_dropout = e3nn_nn.Dropout(feature, out_drop) if out_drop else None
        self.energy_head = torch.nn.Sequential(
            IrrepsLinear(feature, scalars),
            Gate(scalars),
            IrrepsLinear(scalars, "1x0e"),
        )
        self.noise_head = (
            GraphAttention(feature, edge, o3.Irreps("1x1e"), **attention)
            if use_noise_head
            else None
        )
        if weight_init != "normal":
            for module in self.modules():
                if isinstance(module, (IrrepsLinear, DepthwiseTensorProduct)):
                    module.reset_parameters(weight_init)
        self._register_load_state_dict_pre_hook(self._fit_names)

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
        if self.can_denoise:
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
            raise DensError("equiformer_dens knows no graph parallelism; remove --gp-gpus")
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
        features = self.norm(features)
        return features if self.out_dropout is None else self.out_dropout(features)

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

    @staticmethod
    def _fit_names(state_dict: dict[str, torch.Tensor], prefix: str, *_: Any) -> None:
        """Before a state dict is loaded: names become ours, e3nn's constants are left out."""
        for key in [key for key in state_dict if key.startswith(prefix)]:
            value = state_dict.pop(key)
            if not is_constant(key):
                state_dict[prefix + translated(key.removeprefix(prefix))] = value
