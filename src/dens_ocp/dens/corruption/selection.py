"""Which structures and which of their atoms are corrupted."""

from __future__ import annotations

import torch

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.step_plan import any_in_structure


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
    those of structures from MD.

    Args:
        fixed: (N,) 1 for fixed atoms, 0 for free ones.
        batch: (N,) int, structure of each atom.
        md: (B,) 1 for structures of the MD part of All+MD, or None.
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
) -> torch.Tensor:
    """(B,) bool: structures within ``max_force_norm`` and ``min_num_atoms``.

    Args:
        candidate: (N,) bool from :func:`candidates`.
        forces: (N, 3) eV/Angstrom.
        batch: (N,) int, structure of each atom.
        natoms: (B,) int.
    """
    allowed = torch.ones(natoms.numel(), dtype=torch.bool)
    if config.max_force_norm is not None:
        too_large = candidate & (forces.norm(dim=-1) > config.max_force_norm)
        allowed &= ~any_in_structure(too_large, batch, natoms.numel())
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
