"""eSCN with DeNS: fairchem's backbone and heads, force encoding, a noise head."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.models.escn.escn import (
    LayerBlock,
    eSCNBackbone,
    eSCNEnergyHead,
)
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
)

from dens_ocp.models.chosen_atoms import eSCNChosenAtomsHead
from dens_ocp.models.dens_model import DeNSModel

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from torch_geometric.data import Batch


class eSCNDeNS(DeNSModel, eSCNBackbone):  # noqa: N801 (fairchem's spelling)
    """``model: name: escn_dens``, with the options of the authors' model.

    The noise head is a second force output block. The force encoding starts small,
    U(-0.001, 0.001), as in the authors' code.

    Options: those of fairchem's ``eSCN`` and of :class:`~dens_ocp.models.dens_model.DeNSModel`.
    """

    def __init__(
        self, *, use_grid: bool = True, activation_checkpoint: bool = False, **options: Any
    ) -> None:
        """
        Args:
            use_grid: an option of the authors' model; without effect there and here.
            activation_checkpoint: recompute the layer blocks in the backward pass (fairchem-core's
                eSCN backbone accepts the option and ignores it).
            options: see the class.
        """
        super().__init__(**options)
        self.activation_checkpoint = activation_checkpoint
        if activation_checkpoint:
            apply_activation_checkpointing(
                self.layer_blocks, check_fn=lambda module: isinstance(module, LayerBlock)
            )

    def build_heads(self) -> None:
        self.energy_head = eSCNEnergyHead(self)
        self.force_head = eSCNChosenAtomsHead(self)

    def build_noise_head(self) -> None:
        self.noise_head = eSCNChosenAtomsHead(self)
        assert self.force_embedding is not None
        torch.nn.init.uniform_(self.force_embedding.weight, -0.001, 0.001)

    def injected(self, embedding: torch.Tensor) -> RemovableHandle:
        """The first layer block gets the larger embedding; no residual connection goes round it."""

        def hook(_module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            first = copy.copy(args[0])
            first.embedding = first.embedding + embedding
            return (first, *args[1:])

        return self.layer_blocks[0].register_forward_pre_hook(hook)

    def forward(self, data: Batch) -> dict[str, torch.Tensor]:
        """fairchem makes the matrices of its grids at the first call; under autocast they would be
        in half precision for good."""
        with torch.autocast(data.pos.device.type, enabled=False):
            for of_degrees in self.SO3_grid:
                for grid in of_degrees:
                    grid.get_to_grid_mat(data.pos.device)
        return super().forward(data)

    def _original_task(
        self, data: Batch, emb: dict[str, Any], atoms: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        # fairchem's heads add up in the dtype of the positions and cannot do so with the outputs of
        # autocast
        values = emb["sphere_values"].to(data.pos.dtype)
        with torch.autocast(values.device.type, enabled=False):
            return super()._original_task(data, {**emb, "sphere_values": values}, atoms)
