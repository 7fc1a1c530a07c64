"""What ``dens-ocp data`` subtracted from the energies of a data set, and a calculator adds again.

The labels of such a data set are total energies less a constant for each element
(``dataset.json``). Training, validation, predictions and relaxations are of these labels; in ASE an
energy is a total energy.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ase.data import atomic_numbers, chemical_symbols

from dens_ocp.data.made_boxes import DESCRIPTION

WRITTEN_BY = "dens-ocp data"
CHECKPOINT_ENTRY = "energy_reference"


@dataclass(frozen=True)
class DatasetReference:
    """Attributes:
    coefficients: eV by atomic number.
    """

    coefficients: dict[int, float]
    _said: set[int] = field(default_factory=set, compare=False)

    def of(self, batch: Any) -> torch.Tensor:
        """(B,) float64, eV, of the structures of a batch; elements without a coefficient have 0.

        Args:
            batch: with ``atomic_numbers`` (N,) and ``batch`` (N,).
        """
        numbers = batch.atomic_numbers.long().cpu()
        table = torch.zeros(max(int(numbers.max()), *self.coefficients) + 1, dtype=torch.float64)
        for number, value in self.coefficients.items():
            table[number] = value
        unknown = sorted(set(numbers.tolist()) - set(self.coefficients) - self._said)
        if unknown:
            self._said.update(unknown)
            logging.warning(
                "%s: not in the training set, so without a reference energy; the energy is no "
                "total energy",
                ", ".join(chemical_symbols[number] for number in unknown),
            )
        total = torch.zeros(batch.natoms.numel(), dtype=torch.float64)
        return total.index_add_(0, batch.batch.cpu(), table[numbers])


def beside(src: Any) -> DatasetReference | None:
    """The reference of the data set whose LMDB ``src`` (file or folder) is one split.

    Returns:
        None: there is no ``dataset.json`` of ours, or nothing was subtracted.
    """
    if isinstance(src, (list, tuple)) and len(src) == 1:
        src = src[0]
    if not src or not isinstance(src, (str, Path)):
        return None
    for folder in [Path(src), *Path(src).parents][:3]:
        try:
            description = json.loads((folder / DESCRIPTION).read_text())
        except (OSError, ValueError):
            continue
        if not isinstance(description, dict) or description.get("written_by") != WRITTEN_BY:
            continue
        by_symbol = (description.get("energy") or {}).get("reference_eV") or {}
        coefficients = {atomic_numbers[name]: float(value) for name, value in by_symbol.items()}
        return DatasetReference(coefficients) if coefficients else None
    return None


def entry(reference: DatasetReference | None) -> dict[int, float] | None:
    """As it stands in a checkpoint under :data:`CHECKPOINT_ENTRY`."""
    return None if reference is None else dict(reference.coefficients)


def of_checkpoint(checkpoint: Mapping[str, Any]) -> DatasetReference | None:
    """What :func:`entry` wrote; of an older checkpoint, what lies beside its training set.

    Args:
        checkpoint: as read from its file (``OCPCalculator`` deletes ``config.dataset.src``).
    """
    if CHECKPOINT_ENTRY in checkpoint:
        coefficients = checkpoint[CHECKPOINT_ENTRY]
        return DatasetReference(dict(coefficients)) if coefficients else None
    dataset = (checkpoint.get("config") or {}).get("dataset")
    return beside(dataset.get("src")) if isinstance(dataset, Mapping) else None
