"""What is logged for DeNS structures, apart from the metrics of clean ones."""

from __future__ import annotations

import torch

from dens_ocp.dens.step_plan import Corruption


def dens_rows(
    corruption: Corruption, counted: torch.Tensor, batch: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Of which atoms and structures the metrics are, as row numbers.

    Args:
        corruption: what was done to the batch.
        counted: (N,) bool, atoms that enter the metrics (free atoms).
        batch: (N,) int, structure of each atom.

    Returns:
        int64: ``dens_structures``; atoms that count: ``dens_corrupted``, the others of the DeNS
        structures ``dens_others``, all ``dens_counted``.
    """
    structures = corruption.structure_mask
    masks = {
        "dens_structures": structures,
        "dens_corrupted": corruption.noise_mask & counted,
        "dens_others": structures[batch] & counted & ~corruption.noise_mask,
        "dens_counted": counted,
    }
    return {name: torch.nonzero(mask)[:, 0] for name, mask in masks.items()}


def dens_energy_errors(
    energy: torch.Tensor, energy_target: torch.Tensor, rows: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Absolute errors of the energies of DeNS structures; without an energy output there are none.

    Args:
        energy, energy_target: (B, 1) eV.
        rows: of :func:`dens_rows`.

    Returns:
        ``dens_energy_mae`` (eV): a tensor of whose elements the metric is the mean.
    """
    return {"dens_energy_mae": (energy - energy_target).abs()[rows["dens_structures"]]}


def dens_errors(
    *,
    num_structures: int,
    forces: torch.Tensor,
    force_target: torch.Tensor,
    noise: torch.Tensor,
    noise_target: torch.Tensor,
    rows: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor | dict[str, float]]:
    """Absolute errors of the DeNS structures of a training batch; on the device, without a wait.

    Args:
        num_structures: of the batch.
        forces, force_target: (N, 3) eV/Angstrom, of the original structure.
        noise, noise_target: (N, 3) predicted noise and noise, Angstrom.
        rows: of :func:`dens_rows`.

    Returns:
        Tensors, of whose elements the metric is the mean: ``dens_forces_mae`` (eV/Angstrom; atoms
        that count and are not corrupted), ``dens_noise_mae`` (Angstrom; corrupted atoms); and
        ``total`` and ``numel`` of
        ``dens_structures`` and ``dens_corrupted_atoms`` (shares of the batch's structures and of
        its atoms that count).
    """
    structures, corrupted = rows["dens_structures"], rows["dens_corrupted"]
    others, counted = rows["dens_others"], rows["dens_counted"]
    return {
        "dens_forces_mae": (forces - force_target).abs()[others],
        "dens_noise_mae": (noise - noise_target).abs()[corrupted],
        "dens_structures": {"total": len(structures), "numel": num_structures},
        "dens_corrupted_atoms": {"total": len(corrupted), "numel": len(counted)},
    }
