"""Algorithm 1, lines 7 to 22: from a batch and a generator to a ``Corruption``."""

from __future__ import annotations

import numpy as np
import torch

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.corruption.noise import draw_sigmas
from dens_ocp.dens.corruption.selection import (
    allowed_structures,
    candidates,
    denoised_structures,
    movable,
    within_strict_ratio,
)
from dens_ocp.dens.step_plan import Corruption, any_in_structure


def step_generator(seed: int, rank: int, step: int) -> torch.Generator:
    """The CPU generator of one training step.

    Args:
        seed: seed of the run.
        rank: data-parallel rank (ranks of one graph-parallel group share it).
        step: training step, so that a resumed run draws what the uninterrupted one would.

    >>> a, b = step_generator(0, 1, 7), step_generator(0, 1, 7)
    >>> bool((torch.rand(3, generator=a) == torch.rand(3, generator=b)).all())
    True
    """
    words = np.random.SeedSequence([seed, rank, step]).generate_state(2, dtype=np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 ^ int(words[1]))


def corrupt(
    *,
    pos: torch.Tensor,
    forces: torch.Tensor,
    fixed: torch.Tensor,
    batch: torch.Tensor,
    natoms: torch.Tensor,
    config: DeNSConfig,
    generator: torch.Generator,
    md: torch.Tensor | None = None,
) -> Corruption:
    """Draw which atoms are corrupted and by how much. Nothing is changed in place.

    The draw depends on the generator and the shapes alone, and is made on the CPU, so a run is
    reproducible from (seed, rank, step) on every device.

    Args:
        pos: (N, 3) positions, Angstrom.
        forces: (N, 3) forces of the original structure, eV/Angstrom (for ``max_force_norm``).
        fixed: (N,) 1 for fixed atoms.
        batch: (N,) int, structure of each atom.
        natoms: (B,) int.
        config: the options of DeNS.
        generator: a CPU generator, see :func:`step_generator`.
        md: (B,) 1 for structures from molecular dynamics, or None.

    Returns:
        The corruption, on the device of ``pos``.
    """
    device, dtype = pos.device, pos.dtype
    num_structures = natoms.numel()
    fixed, batch, natoms = fixed.cpu(), batch.cpu(), natoms.cpu()
    candidate = candidates(fixed, batch, None if md is None else md.cpu(), config)

    denoised = denoised_structures(num_structures, config, generator)
    draws = torch.rand(len(fixed), generator=generator)
    sigmas = draw_sigmas(config.sigma, num_structures, generator)
    unit_noise = torch.randn(len(fixed), 3, generator=generator)

    denoised = denoised & allowed_structures(candidate, forces.cpu(), batch, natoms, config)
    mask = candidate & denoised[batch] & (draws < config.r)
    mask = mask & within_strict_ratio(mask, candidate, batch, num_structures, config)[batch]

    sigma_of_noise = torch.where(mask, sigmas[batch], torch.zeros(()))[:, None]
    sigma_of_atom, moved = sigma_of_noise, None
    if config.encode == "masked":
        sigma_of_atom = torch.where(denoised, sigmas, torch.zeros(()))[batch][:, None]
        moved = (mask & movable(fixed, config)).to(device)
    return Corruption(
        noise_mask=mask.to(device),
        noise_vec=(unit_noise * sigma_of_noise).to(device, dtype),
        sigmas=sigma_of_atom.to(device, dtype),
        structure_mask=any_in_structure(mask, batch, num_structures).to(device),
        moved=moved,
    )
