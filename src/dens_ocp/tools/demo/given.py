"""Labelled structures in memory: the embedded data set's, or the user's, and what is said of them
without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.scores.prediction_files import Predictions

ZERO_FORCE, MEAN = "mean energy of the split, zero forces", "mean energy and force of train"


def read_given(option: str, path: Path, unique: bool = False) -> list[Structure]:
    """Read an S2EF LMDB, a file or a folder of them.

    Raises:
        DensError: no LMDB there, no records, records without ``y`` or ``force``; with ``unique``,
            two with the same id.
    """
    found: list[Structure] = []
    if path.is_file() or any(path.glob("*.lmdb")):
        found = list(open_structures({"src": str(path)}, option))
    if not found:
        raise DensError(
            f"{option}: {path} holds no records; give a .lmdb file or a folder of .lmdb files"
        )
    for name, value in (("y", found[0].energy), ("force", found[0].forces)):
        if value is None:
            raise DensError(
                f"{option}: the records of {path} have no {name}; give an S2EF data set"
            )
    if unique and len({each.id for each in found}) < len(found):
        raise DensError(f"{option}: {path} has records with the same sid and fid; make them unique")
    return found


def elements(structures: Sequence[Structure]) -> frozenset[int]:
    """Atomic numbers."""
    return frozenset().union(*(each.atomic_numbers.tolist() for each in structures))


def known_to(train: Sequence[Structure], structures: Sequence[Structure]) -> np.ndarray:
    """(S,) bool: structures without an element that ``train`` lacks. Nothing is learned about such
    an element: its embedding keeps its initial values."""
    learned = elements(train)
    return np.array([learned.issuperset(each.atomic_numbers.tolist()) for each in structures])


def labels(structures: Sequence[Structure]) -> tuple[np.ndarray, np.ndarray]:
    """Energies (S,) eV, and forces (n, 3) eV/Angstrom on the free atoms of all; float64."""
    forces = [each.forces[each.free] for each in structures]
    return np.array([each.energy for each in structures]), np.concatenate(forces).astype(float)


def normalizers(structures: Sequence[Structure]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation of energies (eV), root mean square of the free atoms' forces
    (eV/Angstrom), as in a fairchem config."""
    energy, forces = labels(structures)
    return {
        "energy": {"mean": float(energy.mean()), "stdev": float(energy.std())},
        "forces": {"mean": 0.0, "stdev": float(np.sqrt((forces**2).mean()))},
    }


def baselines(
    train: Sequence[Structure], structures: Sequence[Structure]
) -> dict[str, Predictions]:
    """Predictors that anything trained must beat. For every structure the mean of their own
    labelled energies and no force, as in the report's key numbers; and the training set's mean
    energy and mean force of free atoms."""
    energy, forces = labels(train)
    own = float(np.mean([each.energy for each in structures]))
    means = {ZERO_FORCE: (own, np.zeros(3)), MEAN: (float(energy.mean()), forces.mean(0))}
    return {
        name: Predictions(
            [each.id for each in structures],
            np.full(len(structures), mean),
            [np.broadcast_to(force, (int(each.free.sum()), 3)) for each in structures],
        )
        for name, (mean, force) in means.items()
    }
