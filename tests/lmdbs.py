"""Writes LMDBs in OC20's own format: pickled PyG records under ascii numbers, and ``length``."""

from __future__ import annotations

import pickle
from pathlib import Path

import lmdb
import numpy as np

from tests.conftest import slab


def write_lmdb(path: Path, records: list) -> Path:
    """Write ``records`` (PyG Data) to the file ``path``; one that is there may be open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    with (
        lmdb.open(str(new), map_size=1 << 28, subdir=False, meminit=False, map_async=True) as env,
        env.begin(write=True) as transaction,
    ):
        for index, record in enumerate(records):
            transaction.put(f"{index}".encode("ascii"), pickle.dumps(record, protocol=-1))
        transaction.put(b"length", pickle.dumps(len(records), protocol=-1))
    new.replace(path)
    Path(f"{new}-lock").replace(f"{path}-lock")
    return path


def s2ef_records(count: int, seed: int = 0) -> list:
    """OC20's record layout: ``y`` and ``force`` as labels."""
    records = []
    for index in range(count):
        metal = ("Cu", "Pt", "Al", "Ni")[(seed + index) % 4]
        record = slab(metal, ("O", "N", "H")[index % 3], seed * 1000 + index)
        record.y, record.force = record.energy, record.forces
        del record.energy, record.forces
        record.fid = index % 3
        records.append(record)
    return records


def write_s2ef(folder: Path, count: int, seed: int = 0) -> Path:
    """An S2EF data set with the metadata that load balancing reads."""
    records = s2ef_records(count, seed)
    write_lmdb(folder / "data.0000.lmdb", records)
    natoms = np.array([record.natoms for record in records])
    np.savez(folder / "metadata.npz", natoms=natoms, neighbors=natoms * 12)
    return folder


def write_is2re(folder: Path, count: int, seed: int = 0) -> Path:
    """Initial structures with relaxed energies and positions."""
    records = s2ef_records(count, seed)
    for record in records:
        record.y_init, record.y_relaxed = record.y, record.y - 0.5
        record.pos_relaxed = record.pos + 0.05 * (record.fixed == 0)[:, None]
        record.force = None
        del record.y, record.force, record.fid
    write_lmdb(folder / "data.lmdb", records)
    natoms = np.array([record.natoms for record in records])
    np.savez(folder / "metadata.npz", natoms=natoms, neighbors=natoms * 12)
    return folder
