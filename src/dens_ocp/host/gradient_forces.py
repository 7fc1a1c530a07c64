"""Normalizers of a model whose forces are minus the gradient of its energy.

The model's forces are in units of its energy's scale per Angstrom. fairchem normalises both on
their own: with two scales the forces of a prediction would not be the gradient of its energy.
"""

from __future__ import annotations

import torch
from fairchem.core.modules.normalization.normalizer import Normalizer, create_normalizer

from dens_ocp.errors import DensError


def share_scale(normalizers: dict[str, Normalizer]) -> None:
    """Give ``forces`` the scale of ``energy`` and the mean 0, in place.

    Args:
        normalizers: fairchem's, by target; empty where they come from a checkpoint.

    Raises:
        DensError: the config gives forces other values.
    """
    energy, forces = normalizers.get("energy"), normalizers.get("forces")
    scale = torch.tensor(1.0) if energy is None else energy.rmsd
    if forces is not None:
        same_scale = torch.allclose(forces.rmsd.to(scale), scale, rtol=1e-4)
        if not same_scale or bool((forces.mean != 0).any()):
            raise DensError(
                "dataset.train.transforms.normalizer.forces: mean "
                f"{forces.mean.item():g}, scale {forces.rmsd.item():g}: the model's forces are "
                f"gradients of its energy, so their mean is 0 and their scale {scale.item():g}, "
                "that of the energy; remove the entry (and leave forces out of fit.targets)"
            )
    if energy is not None:
        normalizers["forces"] = create_normalizer(
            mean=torch.zeros_like(scale), rmsd=scale.clone()
        ).to(scale.device)
