"""OC20's record format: what its S2EF and IS2RE LMDBs hold."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import lmdb
import numpy as np
import torch
from ase import Atoms
from fairchem.core.preprocessing import AtomsToGraphs
from torch_geometric.data import Data

from dens_ocp.demo.trajectories import Frame, System

MAX_NEIGHBORS = 20
_MAP_SIZE = 1 << 30  # bytes; the file grows with what is in it


def _geometry(atoms: Atoms, sid: int) -> Data:
    data = AtomsToGraphs(r_edges=False, r_fixed=True).convert(atoms, sid=sid)
    data.atomic_numbers = data.atomic_numbers.long()
    data.tags, data.fixed = data.tags.long(), data.fixed.long()
    return data


def s2ef(system: System, frame: Frame) -> Data:
    """A record of an S2EF data set.

    Returns:
        ``pos`` (N, 3) float32 Angstrom, ``cell`` (1, 3, 3) float32, ``atomic_numbers``, ``tags``,
        ``fixed`` (N,) int64, ``natoms``, ``y`` adsorption energy in eV, ``force`` (N, 3) float32
        eV/Angstrom, ``sid``, ``fid``.
    """
    data = _geometry(frame.atoms, system.sid)
    data.y = frame.energy
    data.force = torch.tensor(frame.forces, dtype=torch.float32)
    data.fid = frame.fid
    return data


def is2re(system: System, trajectory: Sequence[Frame]) -> Data:
    """A record of an IS2RE data set: ``pos``, ``y_init`` of the first frame, ``pos_relaxed``,
    ``y_relaxed`` of the last one; the rest as :func:`s2ef`, without ``y``, ``force``, ``fid``."""
    first, last = trajectory[0], trajectory[-1]
    data = _geometry(first.atoms, system.sid)
    data.y_init, data.y_relaxed = first.energy, last.energy
    data.pos_relaxed = _geometry(last.atoms, system.sid).pos
    return data


def write_lmdb(path: Path, records: Sequence[Data]) -> None:
    """Write an LMDB as OC20's: pickles under ascii numbers, their number under ``length``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        lmdb.open(str(path), map_size=_MAP_SIZE, subdir=False, meminit=False) as database,
        database.begin(write=True) as transaction,
    ):
        for index, record in enumerate(records):
            transaction.put(f"{index}".encode("ascii"), pickle.dumps(record, protocol=-1))
        transaction.put(b"length", pickle.dumps(len(records), protocol=-1))
    Path(f"{path}-lock").unlink(missing_ok=True)


def read_lmdb(path: Path) -> list[Data]:
    """All records of an LMDB file."""
    with (
        lmdb.open(str(path), subdir=False, readonly=True, lock=False) as database,
        database.begin() as transaction,
    ):
        number = pickle.loads(transaction.get(b"length"))
        return [pickle.loads(transaction.get(f"{i}".encode("ascii"))) for i in range(number)]


def read_folder(source: Path) -> list[Data]:
    """All records of an LMDB file, or of the LMDBs of a folder in sorted order."""
    source = Path(source)
    paths = [source] if source.is_file() else sorted(source.glob("*.lmdb"))
    return [record for path in paths for record in read_lmdb(path)]


def write_metadata(folder: Path, records: Sequence[Data]) -> None:
    """``metadata.npz``, by which fairchem balances loads: atoms per record, and their edges with
    20 neighbours each."""
    natoms = np.array([record.natoms for record in records])
    np.savez(folder / "metadata.npz", natoms=natoms, neighbors=natoms * MAX_NEIGHBORS)
