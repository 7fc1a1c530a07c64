"""OC20's form on disk: structures as records, records in LMDB files, ``metadata.npz``."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import lmdb
import numpy as np
import torch
from ase import Atoms
from fairchem.core.preprocessing import AtomsToGraphs
from torch_geometric.data import Data

MAX_NEIGHBORS = 20
_MAP_SIZE = 1 << 40  # bytes of address space; the file has the size of what is in it
_AT_ONCE = 1000  # records of a transaction


def geometry(atoms: Atoms, sid: int) -> Data:
    """The part of a record without labels, by fairchem's ``AtomsToGraphs``.

    Returns:
        ``pos`` (N, 3) float32 Angstrom, wrapped into the cell along periodic directions; ``cell``
        (1, 3, 3) float32 Angstrom; ``atomic_numbers``, ``tags``, ``fixed`` (N,) int64, ``fixed``
        from ``FixAtoms``; ``natoms``; ``sid``.
    """
    data = AtomsToGraphs(r_edges=False, r_fixed=True).convert(atoms, sid=sid)
    data.atomic_numbers = data.atomic_numbers.long()
    data.tags, data.fixed = data.tags.long(), data.fixed.long()
    return data


def add_s2ef_labels(data: Data, energy: float, forces: np.ndarray, fid: int) -> Data:
    """Put ``y`` (eV), ``force`` (N, 3) float32 (eV/Angstrom) and ``fid`` into a record."""
    data.y = float(energy)
    data.force = torch.tensor(forces, dtype=torch.float32)
    data.fid = fid
    return data


def write_lmdb(path: Path, records: Iterable[Data]) -> list[int]:
    """Write an LMDB as OC20's: pickles under ascii numbers, their number under ``length``.

    The file appears under its name when it is complete. Records are taken one by one, so a
    generator of any length will do.

    Returns:
        Number of atoms of each record.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.unfinished")  # read by no data set: not *.lmdb
    temporary.unlink(missing_ok=True)
    natoms: list[int] = []
    remaining = iter(records)
    try:
        with lmdb.open(str(temporary), map_size=_MAP_SIZE, subdir=False, meminit=False) as database:
            while some := list(islice(remaining, _AT_ONCE)):
                with database.begin(write=True) as transaction:
                    for record in some:
                        key = f"{len(natoms)}".encode("ascii")
                        transaction.put(key, pickle.dumps(record, protocol=-1))
                        natoms.append(int(record.natoms))
            with database.begin(write=True) as transaction:
                transaction.put(b"length", pickle.dumps(len(natoms), protocol=-1))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        temporary.with_name(f"{temporary.name}-lock").unlink(missing_ok=True)
    return natoms


def write_metadata(folder: Path, natoms: Sequence[int]) -> None:
    """``metadata.npz``, by which fairchem balances loads: atoms per record, and their edges with
    20 neighbours each."""
    counts = np.asarray(natoms)
    np.savez(folder / "metadata.npz", natoms=counts, neighbors=counts * MAX_NEIGHBORS)
