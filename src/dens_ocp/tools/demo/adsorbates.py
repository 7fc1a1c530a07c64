"""Adsorbates: their gas references and how they are put on a surface."""

from __future__ import annotations

from functools import cache

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.data import covalent_radii
from ase.optimize import BFGS

from dens_ocp.tools.demo.surfaces import ADSORBATE, SURFACE

_LARGEST_FORCE = 5.0  # eV/Angstrom, in an initial structure
_LIFT = 0.1  # Angstrom


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
    shifts = [i * surface.cell[0] + j * surface.cell[1] for i in (-1, 0, 1) for j in (-1, 0, 1)]
    heights = []
    for atom in gas:
        for other in surface:
            limit = reach * (covalent_radii[atom.number] + covalent_radii[other.number])
            for shift in shifts:
                apart = other.position + shift - atom.position
                lateral = apart[0] ** 2 + apart[1] ** 2
                if lateral < limit**2:
                    heights.append(apart[2] + np.sqrt(limit**2 - lateral))
    return max(heights, default=surface.positions[:, 2].max() + 1.0)
