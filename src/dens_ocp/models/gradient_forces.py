"""Normalizers of a model whose forces are minus the gradient of its energy.

Such a model's forces are in units of its energy's scale per Angstrom. fairchem normalises both on
their own: with two scales the forces of a prediction would not be the gradient of its energy.
"""

from __future__ import annotations

import logging

import torch
from fairchem.core.modules.normalization.normalizer import Normalizer, create_normalizer


def share_scale(normalizers: dict[str, Normalizer]) -> None:
    """Give ``forces`` the scale of ``energy`` and the mean 0, in place.

    Other values, fitted or from the config, are replaced, with a warning. Nothing is done without a
    normalizer of the energy and of the forces (they may come from a checkpoint later).

    Args:
        normalizers: fairchem's, by target.
    """
    energy, forces = normalizers.get("energy"), normalizers.get("forces")
    if energy is None and forces is None:
        return
    scale = torch.tensor(1.0) if energy is None else energy.rmsd
    if forces is not None:
        if torch.allclose(forces.rmsd.to(scale), scale, rtol=1e-4) and not forces.mean.any():
            return
        logging.warning(
            "the normalizer of the forces (mean %g, scale %g; dataset.train.transforms, or the "
            "checkpoint's) is not used: the model's forces are gradients of its energy, so their "
            "mean is 0 and their scale %g",
            forces.mean.item(),
            forces.rmsd.item(),
            scale.item(),
        )
    shared = create_normalizer(mean=torch.zeros_like(scale), rmsd=scale.clone())
    normalizers["forces"] = shared.to(scale.device)
