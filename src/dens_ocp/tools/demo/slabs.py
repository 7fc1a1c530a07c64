"""Catalyst surfaces of fcc metals and ordered alloys, as OC20 cuts and tags them, and adsorbates:
their gas references and how they are put on a surface."""

from __future__ import annotations

from functools import cache

import numpy as np
from ase import Atoms
from ase.build import molecule, surface
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.data import covalent_radii
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
_LARGEST_FORCE = 5.0  # eV/Angstrom, in an initial structure
_LIFT = 0.1  # Angstrom


def bulk_cell(catalyst: str, length: float) -> Atoms:
    """The conventional cubic cell of an fcc metal or an ordered alloy.

    Args:
        catalyst: formula of its four atoms, the minority first: ``Cu4``; ``AuCu3`` is L1_2,
            ``Au2Ag2`` L1_0.
        length: lattice constant, Angstrom.
    """
    corners = [(0, 0, 0), (0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5)]
    return Atoms(catalyst, scaled_positions=corners, cell=[length] * 3, pbc=True)


@cache
def lattice_constant(catalyst: str) -> float:
    """The cubic lattice constant of lowest EMT energy, Angstrom."""

    def energy(length: float) -> float:
        cell = bulk_cell(catalyst, length)
        cell.calc = EMT()
        return cell.get_potential_energy()

    return float(minimize_scalar(energy, bounds=(3.2, 4.6), method="bounded").x)


def cut(catalyst: str, facet: tuple[int, int, int]) -> Atoms:
    """A slab of 24 to 32 atoms, tagged, with its subsurface atoms fixed, positions as in the bulk.

    Periodic in all directions, vacuum along the third cell vector, calculator EMT.
    """
    layers, repetitions = _FACETS[facet]
    length = lattice_constant(catalyst)
    slab = surface(bulk_cell(catalyst, length), facet, layers, periodic=True)
    # an atom at the lower end of the periodic cell may, rounded, lie at its upper end: one layer
    # would become two halves
    slab.wrap(eps=1e-4)
    slab.center(vacuum=_VACUUM, axis=2)
    slab *= repetitions
    # undercoordinated atoms of the upper half are the surface
    pairs = neighbor_list("i", slab, cutoff=1.15 * length / np.sqrt(2))
    heights = slab.positions[:, 2]
    upper = heights > (heights.min() + heights.max()) / 2
    open_sites = np.bincount(pairs, minlength=len(slab)) < _BULK_NEIGHBOURS
    tags = np.where(open_sites & upper, SURFACE, SUBSURFACE)
    slab.set_tags(tags)
    slab.set_constraint(FixAtoms(mask=tags == SUBSURFACE))
    slab.calc = EMT()
    return slab


@cache
def clean_energy(catalyst: str, facet: tuple[int, int, int]) -> float:
    """EMT energy of the relaxed clean slab, eV."""
    slab = cut(catalyst, facet)
    BFGS(slab, logfile=None).run(fmax=0.01, steps=100)
    return float(slab.get_potential_energy())


@cache
def _gas_energy(name: str) -> float:
    gas = molecule(name)
    gas.calc = EMT()
    BFGS(gas, logfile=None).run(fmax=0.005, steps=200)
    return float(gas.get_potential_energy())


@cache
def atom_references() -> dict[str, float]:
    """OC20's per-atom gas references, eV: from H2, H2O, CO and N2, here with EMT's energies."""
    hydrogen = _gas_energy("H2") / 2
    oxygen = _gas_energy("H2O") - 2 * hydrogen
    return {
        "H": hydrogen,
        "O": oxygen,
        "C": _gas_energy("CO") - oxygen,
        "N": _gas_energy("N2") / 2,
    }


def gas_reference(adsorbate: str) -> float:
    """The gas reference energy of an adsorbate given by its formula, eV."""
    return sum(atom_references()[symbol] for symbol in Atoms(adsorbate).symbols)


def place(slab: Atoms, adsorbate: str, rng: np.random.Generator) -> Atoms:
    """A copy of ``slab`` with the adsorbate at a random place of the surface, random orientation.

    The first atom of the formula looks down, tilted at random. The first pair of atoms that meet
    is 0.95 to 1.15 sums of their covalent radii apart; from there the adsorbate is lifted until no
    force on a free atom is larger than 5 eV/Angstrom.
    """
    gas = Atoms(adsorbate) if len(Atoms(adsorbate)) == 1 else molecule(adsorbate)
    gas.set_initial_magnetic_moments(None)
    down = next(atom.index for atom in gas if atom.symbol == Atoms(adsorbate)[0].symbol)
    gas.positions -= gas.positions[down]
    if len(gas) > 1:
        gas.rotate(gas.positions[1 - down], "z")
        gas.rotate(rng.uniform(0, 40), "x")
        gas.rotate(rng.uniform(0, 360), "z")
    gas.set_tags([ADSORBATE] * len(gas))

    surface = slab[slab.get_tags() == SURFACE]
    offset = rng.uniform(0, 1, 2) @ slab.cell.array[:2]
    gas.positions += offset - [0, 0, offset[2]]
    reach = rng.uniform(0.95, 1.15)
    gas.positions[:, 2] += _height(surface, gas, reach)
    placed = slab + gas
    placed.set_constraint(slab.constraints)
    placed.calc = EMT()
    for _ in range(20):
        if np.linalg.norm(placed.get_forces(), axis=1).max() < _LARGEST_FORCE:
            break
        placed.positions[len(slab) :, 2] += _LIFT
    return placed


def _height(surface: Atoms, gas: Atoms, reach: float) -> float:
    """z of the adsorbate's origin at which the first pair of atoms comes within reach."""
    images = surface.repeat((3, 3, 1))  # the middle one is in its place
    images.positions -= surface.cell[0] + surface.cell[1]
    apart = images.positions - gas.positions[:, None]
    radii = covalent_radii[images.numbers] + covalent_radii[gas.numbers][:, None]
    rise = (reach * radii) ** 2 - (apart[..., :2] ** 2).sum(-1)
    heights = (apart[..., 2] + np.sqrt(rise.clip(0)))[rise > 0]
    return heights.max() if len(heights) else surface.positions[:, 2].max() + 1.0
