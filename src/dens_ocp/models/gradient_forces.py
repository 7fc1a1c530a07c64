"""Normalizers of a model whose forces are minus the gradient of its energy.

Such a model's forces are in units of its energy's scale per Angstrom, its stress in units of that
scale per Angstrom^3. fairchem normalises each on its own: with other scales the forces of a
prediction would not be the gradient of its energy.
"""

from __future__ import annotations

import logging
from collections.abc import Collection

import torch
from fairchem.core.modules.normalization.normalizer import Normalizer, create_normalizer

DERIVATIVES = ("forces", "stress", "stress_isotropic", "stress_anisotropic")
"""Targets that are derivatives of the energy."""


def share_scale(normalizers: dict[str, Normalizer], outputs: Collection[str]) -> None:
    """Give derivatives of the energy its scale, and the mean 0, in place.

    Other values, fitted or from the config, are replaced, with a warning. Nothing is done without a
    normalizer of the energy and of a derivative (they may come from a checkpoint later).

    Args:
        normalizers: fairchem's, by target.
        outputs: names; :data:`DERIVATIVES` among them are meant.
    """
    derivatives = [name for name in DERIVATIVES if name in outputs]
    energy = normalizers.get("energy")
    if energy is None and not any(name in normalizers for name in derivatives):
        return
    scale = torch.tensor(1.0) if energy is None else energy.rmsd
    for name in derivatives:
        given = normalizers.get(name)
        if given is not None:
            if torch.allclose(given.rmsd.to(scale), scale, rtol=1e-4) and not given.mean.any():
                continue
            logging.warning(
                "the normalizer of the %s (mean %s, scale %g; dataset.train.transforms, or the "
                "checkpoint's) is not used, because the %s of the model are derivatives of its "
                "energy; their mean is 0 and their scale %g",
                name, given.mean.tolist(), given.rmsd.item(), name, scale.item(),
            )  # fmt: skip
        shared = create_normalizer(mean=torch.zeros_like(scale), rmsd=scale.clone())
        normalizers[name] = shared.to(scale.device)
