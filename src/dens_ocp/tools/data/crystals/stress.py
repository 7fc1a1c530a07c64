"""Stresses as people write them: forms, units and signs; here (6,), eV/Angstrom^3, ASE's sign."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import units as ase_units
from ase.stress import full_3x3_to_voigt_6_stress

from dens_ocp.errors import DensError
from dens_ocp.tools.data.units import Units

UNITS = {
    "eV/Angstrom^3": 1.0,
    "GPa": ase_units.GPa,
    "kbar": 0.1 * ase_units.GPa,
    "Hartree/Bohr^3": ase_units.Hartree / ase_units.Bohr**3,
}
"""eV/Angstrom^3 by unit."""

SIGNS = {"ase": 1.0, "vasp": -1.0}
"""``ase``: positive where the energy rises with the length of the cell, which wants to shrink.
``vasp``: positive where the cell wants to grow, as in OUTCAR and vasprun.xml, and in the JSON of
MPtrj, which holds VASP's numbers (CHGNet's data set and Matbench Discovery's script for MPtrj
multiply them by -0.1 to get GPa with ASE's sign)."""

_ASYMMETRY = 0.01
"""Of the largest component."""


def factor(unit: str, sign: str, units: Units) -> float:
    """What a stress is multiplied by.

    Args:
        unit: of :data:`UNITS`, or ``auto``: energy/length^3 of the file's units.
        sign: of :data:`SIGNS`, or ``auto``: ASE's.
        units: of the file.
    """
    energy, length, _ = units.factors()
    value = energy / length**3 if unit == "auto" else UNITS[unit]
    return value * SIGNS.get(sign, 1.0)


def voigt(stress: Any, where: str) -> np.ndarray:
    """A stress in Voigt's order xx, yy, zz, yz, xz, xy: (6,) float64.

    Args:
        stress: (3, 3), its 9 numbers, or 6 in Voigt's order.
        where: for messages.

    Raises:
        DensError: something else, or a tensor that is not symmetric.
    """
    try:
        array = np.asarray(stress, dtype=np.float64)
    except (TypeError, ValueError):
        raise DensError(
            f"{where}: the stress {str(stress)[:60]} does not hold numbers; repair the frame, "
            "choose another stress (--stress-key), or leave the frame out"
        ) from None
    if array.shape in ((6,), (1, 6)):
        return array.reshape(6)
    if array.shape not in ((3, 3), (9,), (1, 9), (1, 3, 3)):
        raise DensError(
            f"{where}: the stress has shape {array.shape}; expected 3 x 3, 9 numbers, or 6 in "
            "Voigt order (xx yy zz yz xz xy)"
        )
    array = array.reshape(3, 3)
    difference = np.abs(array - array.T).max()
    if difference > _ASYMMETRY * np.abs(array).max():
        raise DensError(
            f"{where}: the stress is not symmetric (components differ by {difference:.3g}): "
            f"{array.tolist()}; repair the frame, or leave it out"
        )
    return full_3x3_to_voigt_6_stress(array)
