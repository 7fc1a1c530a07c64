"""Labelled crystals on their way into databases, and what leaves one out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from ase import Atoms, units
from ase.neighborlist import neighbor_list

from dens_ocp.errors import DensError
from dens_ocp.tools.data.frames import Frame, check_frame


class Crystal(NamedTuple):
    """A periodic structure with its labels.

    Attributes:
        frame: structure, energy, forces.
        stress: (6,) float64, eV/Angstrom^3, in Voigt's order xx, yy, zz, yz, xz, xy and with ASE's
            sign: the derivative of the energy by the strain, divided by the volume. None: not
            asked for.
        material: the structures of one material go into the same split.
        name: of the frame in its source.
    """

    frame: Frame
    stress: np.ndarray | None
    material: str
    name: str


def check_crystal(crystal: Crystal) -> None:
    """Make sure that the structure can be trained on.

    Raises:
        DensError: as :func:`~dens_ocp.tools.data.frames.check_frame`; a structure that is not
            periodic in all directions; a stress that is not finite.
    """
    frame, stress = crystal.frame, crystal.stress
    pbc = frame.atoms.pbc.tolist()
    if not all(pbc) and len(frame.atoms):
        what = "a molecule" if not any(pbc) else "a slab or a chain"
        cell = " and has no cell" if frame.atoms.cell.volume < 1e-6 else ""
        raise DensError(
            f"{frame.where} is not periodic in all directions (pbc {pbc}){cell}: it is {what}, "
            "not a crystal, and its stress has no meaning; leave it out, or convert such "
            "structures separately with dens-ocp data from-xyz"
        )
    check_frame(frame)
    if stress is not None and not np.isfinite(stress).all():
        raise DensError(
            f"{frame.where}: the stress holds NaN or infinite values; repair the frame, or leave "
            "it out"
        )


class Filters(NamedTuple):
    """What leaves a structure out; None: it does not.

    Attributes:
        max_force: eV/Angstrom, norm of the force on an atom.
        max_stress: GPa, largest absolute component.
        isolated: Angstrom: an atom without another atom, or an image, within this distance.
    """

    max_force: float | None = None
    max_stress: float | None = None
    isolated: float | None = None

    def reason(self, crystal: Crystal) -> str | None:
        """Why the structure is left out, in a few words; None: it stays."""
        frame = crystal.frame
        if self.max_force is not None:
            if np.linalg.norm(frame.forces, axis=1).max() > self.max_force:
                return f"a force above {self.max_force:g} eV/Angstrom"
        if self.max_stress is not None and crystal.stress is not None:
            if np.abs(crystal.stress).max() > self.max_stress * units.GPa:
                return f"a stress above {self.max_stress:g} GPa"
        if self.isolated is not None and _has_isolated_atoms(frame.atoms, self.isolated):
            return f"an atom without a neighbour within {self.isolated:g} Angstrom"
        return None


def _has_isolated_atoms(atoms: Atoms, distance: float) -> bool:
    if atoms.cell.lengths().min() < distance:  # each atom has its own image
        return False
    apart = atoms.get_all_distances()
    np.fill_diagonal(apart, np.inf)
    if (apart.min(axis=1) < distance).all():
        return False
    return len(np.unique(neighbor_list("i", atoms, distance))) < len(atoms)
