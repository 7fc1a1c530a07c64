"""Labelled structures on their way into records, and cells of those that are not periodic in all
directions: fairchem's EquiformerV2 and eSCN repeat the cell in all directions, so images have to be
further away than the model looks."""

from __future__ import annotations

from collections.abc import Iterable
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
                f"{frame.where}: the {name} hold NaN or infinite values; repair the frame, or "
                "leave it out"
            )
    if frame.atoms.pbc.any() and frame.atoms.cell.volume < 1e-6:
        raise DensError(
            f"{frame.where} is periodic (pbc {frame.atoms.pbc.tolist()}) and its cell has no "
            "volume; fairchem repeats the cell in all directions, so give the cell three "
            "vectors, with vacuum in directions without periodicity"
        )


def free_atoms(frame: Frame) -> np.ndarray:
    """(N,) bool: atoms without a constraint."""
    free = np.ones(len(frame.atoms), dtype=bool)
    for constraint in frame.atoms.constraints:
        free[constraint.index] = False
    return free


class Box(NamedTuple):
    """An empty cube around structures without periodicity.

    Attributes:
        side: Angstrom.
        extent: of the largest of them along x, y or z, Angstrom.
    """

    side: float
    extent: float

    @property
    def largest_cutoff(self) -> float:
        """How far a model may see, Angstrom, before an atom sees an image."""
        return self.side - self.extent


def fitted_box(frames: Iterable[Frame], box: float | str | None, cutoff: float) -> Box | None:
    """The box of structures without periodicity; None: they get no cell.

    Args:
        frames: those that are converted.
        box: what was asked for; ``auto``: the smallest multiple of 5 Angstrom that will do.
        cutoff: of the model, Angstrom. In a cube with the largest extent of the molecules plus the
            cutoff no atom sees an image.

    Raises:
        DensError: a box that is too small, with one that is enough; frames of both kinds and no
            box; vacuum of less than the cutoff in a direction that is not periodic.
    """
    periodic: list[str] = []
    others: list[str] = []
    largest, widest = 0.0, ""
    for frame in frames:
        if frame.atoms.pbc.any():
            periodic.append(frame.where)
            _check_vacuum(frame, cutoff)
            continue
        others.append(frame.where)
        extent = float(np.ptp(frame.atoms.positions, axis=0).max()) if len(frame.atoms) else 0.0
        if not widest or extent > largest:
            largest, widest = extent, frame.where
    if periodic and others:
        both = (
            f"{len(periodic)} of {len(periodic) + len(others)} frames are periodic (first: "
            f"{periodic[0]}), {len(others)} are not (first: {others[0]})"
        )
        if box is None or box == "auto":
            raise DensError(
                f"{both}, and a batch cannot hold both; give --box for those that are not "
                "periodic, or convert the two kinds separately"
            )
        print(f"warning: {both}: the periodic frames keep their cells, the others get the box")
    if box is None:
        return None
    if not others:
        if box != "auto":
            print(f"--box: {box:g} is not used, because all frames are periodic")
        return None
    enough = 5 * float(np.ceil((largest + cutoff) / 5))
    side = enough if box == "auto" else float(box)
    if not side >= largest + cutoff:
        raise DensError(
            f"--box: {side:g} Angstrom is too small: {widest} is {largest:.2f} Angstrom long and "
            f"the model has a cutoff of {cutoff:g} Angstrom (--cutoff), so periodic images "
            f"interact in a box of less than {largest + cutoff:.2f} Angstrom; --box {enough:g} "
            "is enough"
        )
    return Box(side, largest)


def _check_vacuum(frame: Frame, cutoff: float) -> None:
    """Images in directions that are not periodic are further away than the cutoff."""
    atoms = frame.atoms
    if atoms.pbc.all():
        return
    heights = 1 / np.linalg.norm(atoms.cell.reciprocal(), axis=1)
    vacua = heights * (1 - np.ptp(atoms.cell.scaled_positions(atoms.positions), axis=0))
    for direction in np.flatnonzero(~atoms.pbc & (vacua < cutoff - 1e-9)):  # rounding
        raise DensError(
            f"{frame.where} is not periodic along its cell vector {direction + 1} (pbc "
            f"{atoms.pbc.tolist()}), where the cell has {max(vacua[direction], 0):.2f} Angstrom "
            "of vacuum, but fairchem repeats it in all directions; a model with a cutoff of "
            f"{cutoff:g} Angstrom (--cutoff) needs {cutoff:g} of vacuum: lengthen the vector, or "
            "set pbc"
        )
