"""Catalyst surfaces of fcc metals and ordered alloys, as OC20 cuts and tags them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from ase import Atoms
from ase.build import surface
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.data import atomic_numbers
from ase.neighborlist import neighbor_list
from ase.optimize import BFGS
from scipy.optimize import minimize_scalar

SUBSURFACE, SURFACE, ADSORBATE = 0, 1, 2
"""OC20's tags; atoms with tag 0 are fixed."""

_FACETS = {
    # Miller indices: (layers of the conventional cell, repetitions in the plane)
    (1, 1, 1): (3, (2, 1, 1)),
    (1, 0, 0): (2, (2, 2, 1)),
    (2, 1, 1): (6, (1, 1, 1)),
}
FACETS = tuple(_FACETS)
_VACUUM = 6.0  # Angstrom on each side
_BULK_NEIGHBOURS = 12


@dataclass(frozen=True)
class Catalyst:
    """An fcc metal (``minority`` None), or an ordered alloy of two: L1_2 (A3B) or L1_0 (AB)."""

    majority: str
    minority: str | None = None
    share: int = 1  # atoms of the minority in the conventional cell of four

    def __str__(self) -> str:
        if self.minority is None:
            return self.majority
        return f"{self.majority}{3 if self.share == 1 else ''}{self.minority}"

    def cell(self, lattice_constant: float) -> Atoms:
        """The conventional cubic cell of four atoms; ``lattice_constant`` in Angstrom."""
        symbols = [self.minority or self.majority] * self.share
        symbols += [self.majority] * (4 - self.share)
        corners = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
        return Atoms(symbols, scaled_positions=corners, cell=[lattice_constant] * 3, pbc=True)


@cache
def lattice_constant(catalyst: Catalyst) -> float:
    """The cubic lattice constant of lowest EMT energy, Angstrom."""

    def energy(length: float) -> float:
        cell = catalyst.cell(length)
        cell.calc = EMT()
        return cell.get_potential_energy()

    return float(minimize_scalar(energy, bounds=(3.2, 4.6), method="bounded").x)


def cut(catalyst: Catalyst, facet: tuple[int, int, int]) -> Atoms:
    """A slab of 24 to 32 atoms, tagged, with its subsurface atoms fixed, positions as in the bulk.

    Periodic in all directions, vacuum along the third cell vector, calculator EMT.
    """
    layers, repetitions = _FACETS[facet]
    length = lattice_constant(catalyst)
    slab = surface(catalyst.cell(length), facet, layers, periodic=True)
    # an atom at the lower end of the periodic cell may, rounded, lie at its upper end: one layer
    # would become two halves
    slab.wrap(eps=1e-4)
    slab.center(vacuum=_VACUUM, axis=2)
    slab *= repetitions
    tag(slab, nearest_neighbour=length / np.sqrt(2))
    slab.calc = EMT()
    return slab


def tag(slab: Atoms, nearest_neighbour: float) -> None:
    """Set tags and constraints of a slab: its undercoordinated upper atoms are the surface.

    Args:
        slab: upper side along +z.
        nearest_neighbour: distance in the bulk, Angstrom.
    """
    neighbours = np.bincount(
        neighbor_list("i", slab, cutoff=1.15 * nearest_neighbour), minlength=len(slab)
    )
    heights = slab.positions[:, 2]
    upper = heights > (heights.min() + heights.max()) / 2
    tags = np.where((neighbours < _BULK_NEIGHBOURS) & upper, SURFACE, SUBSURFACE)
    slab.set_tags(tags)
    slab.set_constraint(FixAtoms(mask=tags == SUBSURFACE))


@cache
def clean_energy(catalyst: Catalyst, facet: tuple[int, int, int]) -> float:
    """EMT energy of the relaxed clean slab, eV."""
    slab = cut(catalyst, facet)
    BFGS(slab, logfile=None).run(fmax=0.01, steps=100)
    return float(slab.get_potential_energy())


def elements(catalyst: Catalyst) -> set[int]:
    """Atomic numbers of the metals."""
    return {atomic_numbers[name] for name in (catalyst.majority, catalyst.minority) if name}
