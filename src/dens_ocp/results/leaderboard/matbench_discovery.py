"""Files that Matbench Discovery's scripts read: relaxed structures and their energies.

The format is what ``models/eqV2/test_fairchem_discovery.py`` of janosh/matbench-discovery writes,
the script of eqV2 S DeNS: JSON lines (pandas' ``orient="records", lines=True``), compressed with
gzip, one line for each material in this order of columns:

- ``material_id``: ``wbm-1-1`` for example, the name of the structure;
- ``<name>_structure``: pymatgen's ``Structure.as_dict()``;
- ``<name>_energy``: eV for the cell, as the model predicts it: no corrections, no references.

``join_fairchem_preds.py`` and its successors read the second and third column by their places, turn
the energies into formation energies, and apply Materials Project's corrections;
``scripts/analyze_geo_opt.py`` reads the structures. A structure that could not be relaxed has no
line, as there.
"""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path

from ase import Atoms

from dens_ocp import whole_files


def write(path: Path, name: str, relaxed: Iterable[tuple[str, Atoms, float]]) -> int:
    """Write a file, whole; the same structures give the same bytes.

    Args:
        path: ``.json.gz``. name: of the model, the beginning of the columns' names.
        relaxed: material id, relaxed structure, energy (eV) of each.

    Returns:
        The number of lines.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    lines = 0
    try:
        with (
            open(temporary, "wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8") as file,
        ):
            for material_id, atoms, energy in relaxed:
                row = {
                    "material_id": material_id,
                    f"{name}_structure": structure_of(atoms),
                    f"{name}_energy": energy,
                }
                file.write(json.dumps(row, allow_nan=False) + "\n")
                lines += 1
        whole_files.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return lines


def structure_of(atoms: Atoms) -> dict:
    """``as_dict()`` of the pymatgen structure: lattice, elements, positions; nothing else that ASE
    knows of it."""
    from pymatgen.io.ase import AseAtomsAdaptor

    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    return AseAtomsAdaptor.get_structure(bare).as_dict()
