"""Do numbers look like eV and Angstrom? Signs that they are in other units, as words."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ase import Atoms

_NEAREST_NEIGHBOUR = (0.7, 4.0)
"""Angstrom, median over atoms: 0.74 in H2, 2.5 to 3.2 in metals; in Bohr 4.7 to 6, in nm 0.3."""
_LARGEST_FORCE = 100.0
"""eV/Angstrom. OC20 and OC22 leave out frames with forces above 50."""
_RMS_FORCE = (0.03, 8.0)
"""eV/Angstrom: 0.3 to 2 in OC20, MD17 and MPtrj; as kcal/mol/Angstrom 23 times larger, as
Hartree/Bohr 51 times smaller."""
_RMS_STRESS = (1e-4, 2.0)
"""eV/Angstrom^3, of components: 0.027 in MPtrj, 0.7 in crystals under pressures up to 1000 GPa. As
GPa 160 times larger, as kbar 1602 times."""
_LARGEST_ENERGY = 20.0
"""eV per atom: total energies of VASP lie within it, adsorption energies far within."""


def doubts(
    *,
    nearest: float = math.nan,
    rms_force: float = math.nan,
    largest_force: float = math.nan,
    rms_stress: float = math.nan,
    energy_per_atom: float = math.nan,
) -> list[str]:
    """What is implausible, each in a few words; NaN: not known.

    Args:
        nearest: median distance of nearest neighbours, Angstrom.
        rms_force, largest_force: of free atoms, eV/Angstrom.
        rms_stress: of components, eV/Angstrom^3.
        energy_per_atom: largest, eV.

    >>> doubts(nearest=2.5, rms_force=1.0)
    []
    >>> doubts(nearest=4.8)[0].partition(" (")[0]
    'nearest neighbours are 4.80 Angstrom apart'
    """
    apart = f"nearest neighbours are {nearest:.2f} Angstrom apart (lengths in"
    force = f"an rms force of {rms_force:.3g} eV/Angstrom is"
    stress = f"an rms stress of {rms_stress:.3g} eV/Angstrom^3 is"
    found = {
        f"{apart} Bohr read as Angstrom are 1.9 times too large)": nearest > _NEAREST_NEIGHBOUR[1],
        f"{apart} nm read as Angstrom are 10 times too small)": nearest < _NEAREST_NEIGHBOUR[0],
        f"{force} large (forces in kcal/mol/Angstrom read as eV/Angstrom are 23 times too large, "
        "in kJ/mol/Angstrom 96 times)": rms_force > _RMS_FORCE[1],
        f"{force} small (forces in Hartree/Bohr read as eV/Angstrom are 51 times too small)": (
            rms_force < _RMS_FORCE[0]
        ),
        f"{stress} large (stresses in kbar read as eV/Angstrom^3 are 1602 times too large, in GPa "
        "160 times)": rms_stress > _RMS_STRESS[1],
        f"{stress} small (stresses in eV/Angstrom^3 read as kbar are 1602 times too small, as GPa "
        "160 times)": rms_stress < _RMS_STRESS[0],
        f"the largest force is {largest_force:.0f} eV/Angstrom": largest_force > _LARGEST_FORCE,
        f"the largest energy is {energy_per_atom:.0f} eV per atom": energy_per_atom
        > _LARGEST_ENERGY,
    }
    return [text for text, implausible in found.items() if implausible]


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
