"""Algorithm 1, lines 7 to 22: which atoms of a batch are corrupted, and by how much."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from dens_ocp.dens.config import DeNSConfig, MultiScaleSigma
from dens_ocp.dens.step_plan import Corruption, any_in_structure
from dens_ocp.errors import DensError

if TYPE_CHECKING:
    from torch_geometric.data import Batch


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
    skip: torch.Tensor | None = None,
    stress: torch.Tensor | None = None,
) -> Corruption:
    """Draw which atoms are corrupted and by how much. Nothing is changed in place.

    The draw depends on the generator and the shapes alone, and is made on the CPU, so a run is
    reproducible from (seed, rank, step) on every device.

    Args:
        pos: (N, 3) positions, Angstrom.
        forces: (N, 3) forces of the original structure, eV/Angstrom (for ``max_force_norm`` and
            ``max_net_force``).
        fixed: (N,) 1 for fixed atoms.
        batch: (N,) int, structure of each atom.
        natoms: (B,) int.
        config: the options of DeNS.
        generator: a CPU generator, see :func:`step_generator`.
        md: (B,) 1 for structures from molecular dynamics, or None.
        skip: (B,) 1 for structures that are never corrupted (EquiformerV3's ``skip_dens``), or
            None.
        stress: (B, 3, 3) or of that many numbers, of the original structure, eV/Angstrom^3 (for
            ``max_stress_norm``).

    Returns:
        The corruption, on the device of ``pos``.
    """
    device, dtype = pos.device, pos.dtype
    num_structures = natoms.numel()
    fixed, batch, natoms = fixed.cpu(), batch.cpu(), natoms.cpu()
    candidate = candidates(fixed, batch, _either(md, skip), config)

    denoised = denoised_structures(num_structures, config, generator)
    draws = torch.rand(len(fixed), generator=generator)
    sigmas = draw_sigmas(config.sigma, num_structures, generator)
    unit_noise = torch.randn(len(fixed), 3, generator=generator)

    denoised = denoised & allowed_structures(
        candidate, forces.cpu(), batch, natoms, config, None if stress is None else stress.cpu()
    )
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


def corruption_of(batch: Batch, config: DeNSConfig, generator: torch.Generator) -> Corruption:
    """:func:`corrupt` of a PyG batch, with the fields that it has of ``md`` (All+MD), ``skip_dens``
    (EquiformerV3) and ``stress``."""
    return corrupt(
        pos=batch.pos,
        forces=batch.forces,
        fixed=batch.fixed,
        batch=batch.batch,
        natoms=batch.natoms,
        md=batch.get("md", None),
        skip=batch.get("skip_dens", None),
        stress=batch.get("stress", None),
        config=config,
        generator=generator,
    )


def _either(*flags: torch.Tensor | None) -> torch.Tensor | None:
    """(B,) bool: structures with one of the flags."""
    given = [each.cpu().bool().view(-1) for each in flags if each is not None]
    return torch.stack(given).any(dim=0) if given else None


def movable(fixed: torch.Tensor, config: DeNSConfig) -> torch.Tensor:
    """(N,) bool: atoms whose position may change: free ones, all with ``all_atoms``.

    Args:
        fixed: (N,) 1 for fixed atoms, 0 for free ones.
    """
    return torch.ones_like(fixed, dtype=torch.bool) if config.all_atoms else fixed == 0


def candidates(
    fixed: torch.Tensor, batch: torch.Tensor, md: torch.Tensor | None, config: DeNSConfig
) -> torch.Tensor:
    """(N,) bool: atoms that may be drawn: those that may move, all with ``encode: masked``; never
    those of structures from MD, nor of structures that are to be left as they are.

    Args:
        fixed: (N,) 1 for fixed atoms, 0 for free ones.
        batch: (N,) int, structure of each atom.
        md: (B,) 1 for structures of the MD part of All+MD, or such as are to be left, or None.
    """
    mask = movable(fixed, config)
    if config.encode == "masked":
        mask = torch.ones_like(mask)
    if md is not None:
        mask = mask & ~md.bool()[batch]
    return mask


def denoised_structures(
    num_structures: int, config: DeNSConfig, generator: torch.Generator
) -> torch.Tensor:
    """(B,) bool: the coin of Algorithm 1, line 7. ``choice: batch`` tosses one for all."""
    draws = torch.rand(1 if config.choice == "batch" else num_structures, generator=generator)
    return (draws < config.p).expand(num_structures)


def allowed_structures(
    candidate: torch.Tensor,
    forces: torch.Tensor,
    batch: torch.Tensor,
    natoms: torch.Tensor,
    config: DeNSConfig,
    stress: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B,) bool: structures within the limits of size, forces and stress.

    Args:
        candidate: (N,) bool from :func:`candidates`.
        forces: (N, 3) eV/Angstrom.
        batch: (N,) int, structure of each atom.
        natoms: (B,) int.
        stress: as of :func:`corrupt`.

    Raises:
        DensError: ``max_stress_norm`` is asked for, and there is no stress.
    """
    allowed = torch.ones(natoms.numel(), dtype=torch.bool)
    if config.max_force_norm is not None:
        too_large = candidate & (forces.norm(dim=-1) > config.max_force_norm)
        allowed &= ~any_in_structure(too_large, batch, natoms.numel())
    if config.max_net_force is not None:
        net = forces.new_zeros(natoms.numel(), 3).index_add(0, batch, forces)
        allowed &= net.norm(dim=-1) <= config.max_net_force
    if config.max_stress_norm is not None:
        if stress is None:
            raise DensError(
                "optim.dens.max_stress_norm (max_stress_norm of optim.denoising_pos_params): the "
                "records have no stress; read it (dataset.train.a2g_args: {r_stress: True} for "
                "ASE data sets), or remove the option"
            )
        norms = stress.reshape(natoms.numel(), -1).norm(dim=-1)
        allowed &= norms <= config.max_stress_norm
    if config.min_num_atoms is not None:
        allowed &= natoms >= config.min_num_atoms
    return allowed


def within_strict_ratio(
    picked: torch.Tensor,
    candidate: torch.Tensor,
    batch: torch.Tensor,
    num_structures: int,
    config: DeNSConfig,
) -> torch.Tensor:
    """(B,) bool: structures in which at most ``strict_max_ratio`` of the candidates are picked."""
    if config.strict_max_ratio is None:
        return torch.ones(num_structures, dtype=torch.bool)
    zeros = torch.zeros(num_structures, dtype=torch.float64)
    num_picked = zeros.index_add(0, batch, picked.double())
    num_candidates = zeros.index_add(0, batch, candidate.double())
    return num_picked <= config.strict_max_ratio * num_candidates


def sigma_levels(sigma: float | MultiScaleSigma) -> torch.Tensor:
    """The noise levels, (num_levels,) float32, Angstrom, ascending.

    A schedule has ``num_steps`` levels, evenly spaced in the logarithm (authors' code,
    ``add_gaussian_noise_schedule_to_position``).
    """
    if not isinstance(sigma, MultiScaleSigma):
        return torch.tensor([sigma], dtype=torch.float32)
    ends = (math.log(sigma.low), math.log(sigma.high))
    return torch.linspace(*ends, sigma.num_steps, dtype=torch.float64).exp().float()


def draw_sigmas(
    sigma: float | MultiScaleSigma, num_structures: int, generator: torch.Generator
) -> torch.Tensor:
    """One sigma per structure, (B,) float32, Angstrom."""
    levels = sigma_levels(sigma)
    index = torch.randint(len(levels), (num_structures,), generator=generator)
    return levels[index]
