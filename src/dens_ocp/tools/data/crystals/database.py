"""Crystals written as fairchem's ASE-LMDBs: ``data.0000.aselmdb``, ..., ``metadata.npz``."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ase.db
from ase.calculators.singlepoint import SinglePointCalculator

from dens_ocp.data.records.oc20_records import write_metadata
from dens_ocp.tools.data.crystals.crystal import Crystal

_ROWS = 20_000  # of a file: ase_db_backends looks through all ids for each row it writes


class Databases:
    """A folder that fairchem's ``ase_db`` reads; a context, at whose end it is complete.

    Args:
        folder: to make.
        rows: of a file at most.
    """

    def __init__(self, folder: Path, rows: int = _ROWS) -> None:
        self.folder, self.rows = folder, rows
        self.natoms: list[int] = []
        self._open = ExitStack()
        self._database: Any = None
        folder.mkdir(parents=True)

    def __enter__(self) -> Databases:
        return self

    def __exit__(self, error: object, *_: object) -> None:
        self._open.close()
        if error is None:
            write_metadata(self.folder, self.natoms)
            for lock in self.folder.glob("*.aselmdb-lock"):
                lock.unlink()

    def write(self, crystal: Crystal, fid: int) -> None:
        """Append a row with energy (eV), forces (eV/Angstrom) and, if there is one, stress
        (eV/Angstrom^3, Voigt); ``data`` has ``sid`` (the material), ``fid`` and ``frame``."""
        number, rest = divmod(len(self.natoms), self.rows)
        if rest == 0:
            self._open.close()
            path = self.folder / f"data.{number:04d}.aselmdb"
            database = ase.db.connect(str(path), use_lock_file=False)
            self._database = self._open.enter_context(database)
        frame = crystal.frame
        labels = {} if crystal.stress is None else {"stress": crystal.stress}
        atoms = frame.atoms.copy()
        atoms.calc = SinglePointCalculator(
            atoms, energy=frame.energy, forces=frame.forces, **labels
        )
        self._database.write(
            atoms, data={"sid": crystal.material, "fid": fid, "frame": crystal.name}
        )
        self.natoms.append(len(atoms))
