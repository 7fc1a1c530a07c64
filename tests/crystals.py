"""Strained and rattled metals with energies, forces and stress of EMT, in databases of ASE."""

from __future__ import annotations

from pathlib import Path

import ase.db
import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT


def crystal(seed: int) -> Atoms:
    atoms = bulk(("Cu", "Ni", "Al")[seed % 3], cubic=True)
    atoms.rattle(0.1, seed=seed)
    strain = np.eye(3) + 0.05 * np.random.default_rng(seed).standard_normal((3, 3))
    atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
    return atoms


def write_crystals(
    folder: Path, train: range = range(12), val: range = range(12, 18), sids: bool = False
) -> Path:
    """``train`` and ``val``, of these seeds; with ``sids`` they are called ``mat-<seed>``."""
    for split, seeds in (("train", train), ("val", val)):
        (folder / split).mkdir()
        with ase.db.connect(folder / split / "data.db") as database:
            for seed in seeds:
                atoms = crystal(seed)
                atoms.calc = EMT()
                atoms.get_stress()
                database.write(atoms, data={"sid": f"mat-{seed}"} if sids else {})
    return folder
