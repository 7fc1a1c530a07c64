"""What a structure of ASE says of itself: its fixed atoms, and results that need no calculation."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, constrained_indices


def fixed_atoms(atoms: Atoms) -> np.ndarray:
    """(N,) bool: atoms of ``FixAtoms``."""
    fixed = np.zeros(len(atoms), dtype=bool)
    # without any, ASE's array is one of floats
    fixed[constrained_indices(atoms, only_include=FixAtoms).astype(int)] = True
    return fixed


def known_result(atoms: Atoms, name: str) -> Any:
    """A result of the calculator (``energy``, ``forces``, ``stress``) in ASE's units; None where it
    would have to be computed."""
    if atoms.calc is None or atoms.calc.calculation_required(atoms, [name]):
        return None
    return atoms.calc.get_property(name, atoms)
