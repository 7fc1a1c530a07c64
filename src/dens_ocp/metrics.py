"""What is logged for DeNS structures, apart from the metrics of clean ones.

Every value is a fairchem statistic, ``{"metric", "total", "numel"}``, so that fairchem's
``Evaluator.update`` accumulates it; statistics over nothing are left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch_geometric.data import Batch

from dens_ocp.batch import Corruption


def dens_metrics(
    *,
    energy: torch.Tensor,
    energy_target: torch.Tensor,
    forces: torch.Tensor,
    force_target: torch.Tensor,
    noise: torch.Tensor,
    corruption: Corruption,
    counted: torch.Tensor,
    batch: torch.Tensor,
) -> dict[str, dict[str, float]]:
    """Mean absolute errors of the DeNS structures of a training batch.

    Args:
        energy, energy_target: (B, 1) eV.
        forces, force_target: (N, 3) eV/Angstrom, of the original structure.
        noise: (N, 3) predicted noise, Angstrom.
        corruption: what was done to the batch.
        counted: (N,) bool, atoms that enter the metrics (free atoms).
        batch: (N,) int, structure of each atom.

    Returns:
        ``dens_energy_mae`` (eV), ``dens_forces_mae`` (eV/Angstrom; atoms that count and are not
        corrupted), ``dens_noise_mae`` (Angstrom; corrupted atoms), ``dens_structures`` and
        ``dens_corrupted_atoms`` (shares of the batch's structures and of its atoms that count).
    """
    structures = corruption.structure_mask
    corrupted = corruption.noise_mask & counted
    others = structures[batch] & counted & ~corruption.noise_mask
    statistics = {
        "dens_energy_mae": _mean((energy - energy_target).abs()[structures]),
        "dens_forces_mae": _mean((forces - force_target).abs()[others]),
        "dens_noise_mae": _mean((noise - corruption.noise_vec).abs()[corrupted]),
        "dens_structures": _mean(structures.float()),
        "dens_corrupted_atoms": _mean(corrupted[counted].float()),
    }
    return {name: value for name, value in statistics.items() if value["numel"] > 0}


def _mean(values: torch.Tensor) -> dict[str, float]:
    total, numel = values.detach().double().sum().item(), values.numel()
    return {"metric": total / numel if numel else 0.0, "total": total, "numel": numel}


def select_structures(
    batch: Batch, outputs: dict[str, torch.Tensor], keep: torch.Tensor
) -> tuple[Batch, dict[str, torch.Tensor]]:
    """The structures in ``keep`` (B,) bool of a batch and of the predictions for it.

    Tensors with a row per atom or per structure are cut, all others are kept whole.
    """
    atoms = keep[batch.batch]

    def cut(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() > 0:
            if len(value) == len(atoms):
                return value[atoms]
            if len(value) == len(keep):
                return value[keep]
        return value

    selected = Batch(**{name: cut(batch[name]) for name in batch.keys()})  # noqa: SIM118 (PyG)
    number = torch.cumsum(keep.long(), 0) - 1
    selected.batch = number[selected.batch]
    return selected, {name: cut(value) for name, value in outputs.items()}
