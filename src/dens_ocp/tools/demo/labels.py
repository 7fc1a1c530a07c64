"""Labels of S2EF records as arrays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch_geometric.data import Data


@dataclass(frozen=True)
class Labels:
    """Energies (S,) eV and forces on free atoms, a list of S arrays (n, 3) eV/Angstrom."""

    energy: np.ndarray
    forces: list[np.ndarray]

    @property
    def all_forces(self) -> np.ndarray:
        """(n, 3) forces on the free atoms of all structures."""
        return np.concatenate(self.forces)


def targets(records: Iterable[Data]) -> tuple[list[str], Labels]:
    """Ids ``sid_fid`` and labels (``y``, ``force``) of S2EF records."""
    ids, energies, forces = [], [], []
    for record in records:
        ids.append(f"{number(record.sid)}_{number(record.fid)}")
        energies.append(float(record.y))
        forces.append(record.force[record.fixed == 0].numpy().astype(np.float64))
    return ids, Labels(np.array(energies), forces)


def number(value: Any) -> int | str:
    """A sid or fid: a number, a string, or a tensor with one number."""
    return value.item() if hasattr(value, "item") else value
