"""Distances in a record."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms


def nearest_neighbour(record: Any) -> float:
    """Median over the atoms of the distance to the nearest other atom, periodic; Angstrom.

    NaN for a single atom.
    """
    cell = getattr(record, "cell", None)
    cell = None if cell is None else cell.reshape(3, 3).numpy()
    atoms = Atoms(
        positions=record.pos.numpy(),
        numbers=record.atomic_numbers.int().numpy(),
        cell=cell,
        pbc=cell is not None,
    )
    if len(atoms) < 2:
        return float("nan")
    distances = atoms.get_all_distances(mic=cell is not None)
    np.fill_diagonal(distances, np.inf)
    return float(np.median(distances.min(axis=1)))
