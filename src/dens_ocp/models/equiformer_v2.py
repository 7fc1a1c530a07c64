"""EquiformerV2 with DeNS: fairchem's backbone and heads, force encoding, a noise head."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.models.equiformer_v2.equiformer_v2 import EquiformerV2Backbone
from fairchem.core.models.equiformer_v2.heads import EqV2ScalarHead
from fairchem.core.models.equiformer_v2.weight_initialization import eqv2_init_weights

from dens_ocp.dens.step_plan import read_plan
from dens_ocp.errors import DensError
from dens_ocp.models import precision
from dens_ocp.models.chosen_atoms import EqV2ChosenAtomsHead, ExactRotation, edges_into
from dens_ocp.models.dens_model import DeNSModel
from dens_ocp.models.fast.layer_graphs import LayerGraphs

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from torch_geometric.data import Batch


class EquiformerV2DeNS(DeNSModel, EquiformerV2Backbone):
    """``model: name: equiformer_v2_dens``, with the options of the authors' model.

    The noise head is one more equivariant graph attention block, as the force head is
    (fairchem's ``EqV2VectorHead``): l = 1 of one output channel, no attention dropout.

    Options: those of fairchem's ``EquiformerV2Backbone`` and of
    :class:`~dens_ocp.models.dens_model.DeNSModel`. Example::

        model:
          name: equiformer_v2_dens
          max_neighbors: 20
          max_radius: 12.0
          num_layers: 12
          lmax_list: [6]
          mmax_list: [2]
          use_force_encoding: True
    """

    def __init__(
        self, *, use_tp_reparam: bool = False, cuda_graphs: bool = False, **options: Any
    ) -> None:
        """
        Args:
            cuda_graphs: with ``fast``, in training on a GPU: launch the layers as a CUDA graph.
                Without effect on a CPU, with activation checkpoints and with graph parallelism.
            use_tp_reparam: an option of the authors' files; fairchem-core knows only False.
            options: see the class.
        """
        if use_tp_reparam:
            raise DensError(
                "model.use_tp_reparam: True: fairchem's EquiformerV2 has no tensor product "
                "re-parametrisation; set it to False, as all published models do"
            )
        super().__init__(**options)
        self.layer_graphs = LayerGraphs(self) if cuda_graphs else None

    def _backbone(
        self, data: Batch, embedding: torch.Tensor | None, sigmas: torch.Tensor
    ) -> dict[str, Any]:
        graphs = self.layer_graphs
        with graphs.in_use() if graphs is not None else nullcontext():
            return super()._backbone(data, embedding, sigmas)

    def generate_graph(self, data: Batch, *args: Any, **options: Any) -> Any:
        """Heads ask for the edges of their atoms before the layers begin: the answer waits for the
        device."""
        graph, plan = super().generate_graph(data, *args, **options), read_plan(data)
        for atoms in (plan.force_atoms, plan.noise_atoms):
            if atoms is not None:
                edges_into(atoms, graph.edge_index)
        return graph

    def build_heads(self) -> None:
        for rotation, mmax in zip(self.SO3_rotation, self.mmax_list, strict=True):
            rotation.__class__, rotation.mmax = ExactRotation, mmax
        self.energy_head = EqV2ScalarHead(self)
        self.energy_head.energy_block.register_forward_hook(precision.energies_in_float32)
        self.force_head = EqV2ChosenAtomsHead(self)

    def build_noise_head(self) -> None:
        self.noise_head = EqV2ChosenAtomsHead(self)
        for module in (self.force_embedding, self.noise_schedule_sigma_embedding):
            if module is not None:
                module.apply(partial(eqv2_init_weights, weight_init=self.weight_init))

    def injected(self, embedding: torch.Tensor) -> RemovableHandle:
        """The backbone adds the output of its edge-degree embedding to the initial node embedding.

        It is called with the number of this rank's atoms and the index of the first one as its last
        two arguments; under graph parallelism these pick this rank's rows.
        """

        def hook(_module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            num_nodes, first_node = args[-2:]
            output.embedding = output.embedding + embedding[first_node : first_node + num_nodes]
            return output

        return self.edge_degree_embedding.register_forward_hook(hook)

    def _original_task(
        self, data: Batch, emb: dict[str, Any], atoms: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        outputs = super()._original_task(data, emb, atoms)
        if self.use_energy_lin_ref:
            # fairchem's flat EquiformerV2 does this; its backbone, which we build on, only holds
            # the parameter
            references = self.energy_lin_ref[data.atomic_numbers.long()]
            outputs["energy"] = (
                outputs["energy"].to(references.dtype).index_add(0, data.batch, references)
            )
        return outputs
