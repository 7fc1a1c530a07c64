"""A labelled structure on its way into a record."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms

from dens_ocp.errors import DensError


class Frame(NamedTuple):
    """A structure with its labels.

    Attributes:
        atoms: numbers, positions (Angstrom), cell, pbc, tags, ``FixAtoms``.
        energy: eV.
        forces: (N, 3) float64, eV/Angstrom.
        fid: number of the frame in its file.
        where: file and number, for messages.
    """

    atoms: Atoms
    energy: float
    forces: np.ndarray
    fid: int
    where: str


def check_frame(frame: Frame) -> None:
    """Make sure that the frame can be trained on.

    Raises:
        DensError: no atoms, another number of forces than of atoms, values that are not finite, a
            periodic structure whose cell has no volume.
    """
    natoms = len(frame.atoms)
    if natoms == 0:
        raise DensError(f"{frame.where} has no atoms; leave it out")
    if frame.forces.shape != (natoms, 3):
        raise DensError(
            f"{frame.where}: forces of shape {frame.forces.shape} for {natoms} atoms; expected "
            f"({natoms}, 3)"
        )
    values = {"energy": frame.energy, "forces": frame.forces, "positions": frame.atoms.positions}
    for name, value in values.items():
        if not np.isfinite(value).all():
            raise DensError(
                f"{frame.where}: {name} hold NaN or infinite values; repair the frame, or leave it "
                "out"
            )
    if frame.atoms.pbc.any() and frame.atoms.cell.volume < 1e-6:
        raise DensError(
            f"{frame.where} is periodic (pbc {frame.atoms.pbc.tolist()}) and its cell has no "
            "volume; fairchem repeats the cell in all directions, so give it three vectors, with "
            "vacuum where it is not periodic"
        )


def free_atoms(frame: Frame) -> np.ndarray:
    """(N,) bool: atoms without a constraint."""
    free = np.ones(len(frame.atoms), dtype=bool)
    for constraint in frame.atoms.constraints:
        free[constraint.index] = False
    return free
