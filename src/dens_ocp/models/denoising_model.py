"""What the trainer asks of a model that it trains with DeNS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch_geometric.data import Batch


class DenoisingModel(torch.nn.Module, ABC):
    """Energy and forces of a batch; in training also the noise of its corrupted atoms.

    In training mode the batch may carry the fields of :mod:`dens_ocp.dens.step_plan`. In evaluation
    mode none of these fields is looked at, ``forces`` neither.

    Attributes:
        use_denoising_energy: False: no energy loss on DeNS structures.
        use_denoising_stress: False: no loss of the stress on DeNS structures.
        can_denoise: the model has a noise head.
        force_encoding_scale: encoded forces (eV/Angstrom) are multiplied by it.
        left_out_of_batches: outputs that the model does not give of any structure of a batch with a
            corrupted atom (:mod:`dens_ocp.models.authors_contract`).
        keeps_names: checkpoints are read by the model's own names alone, strictly.
        gradient_forces: forces are minus the gradient of the energy, so both share one scale.
    """

    use_denoising_energy: bool = True
    use_denoising_stress: bool = True
    can_denoise: bool = True
    force_encoding_scale: float = 1.0
    gradient_forces: bool = False
    left_out_of_batches: tuple[str, ...] = ()
    keeps_names: bool = False

    @classmethod
    def has_gradient_forces(cls, options: Mapping[str, Any]) -> bool:
        """Whether a model with these options has :attr:`gradient_forces`."""
        return cls.gradient_forces

    def replaces_heads(self, names: Collection[str]) -> bool:
        """Whether weights of these names (ours) are a start whose heads this model replaces."""
        return False

    def start_from(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """What this model can take over of another one's weights, by our names."""
        return dict(state)

    def forward(self, data: Batch) -> dict[str, torch.Tensor]:
        """:meth:`denoise` in training mode, :meth:`predict` in evaluation mode."""
        return self.denoise(data) if self.training else self.predict(data)

    @abstractmethod
    def predict(self, data: Batch) -> dict[str, torch.Tensor]:
        """The original task: ``energy`` (B,) and ``forces`` (N, 3), normalised."""

    @abstractmethod
    def denoise(self, data: Batch) -> dict[str, torch.Tensor]:
        """The original task and, if :attr:`can_denoise`, ``noise`` (N, 3) in units of sigma."""
