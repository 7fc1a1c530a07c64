"""Records of the demo, in OC20's form, from its trajectories."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import lmdb
from torch_geometric.data import Data

from dens_ocp.data.records.oc20_records import add_s2ef_labels, geometry
from dens_ocp.tools.demo.trajectories import Frame, System


def s2ef(system: System, frame: Frame) -> Data:
    """A record of an S2EF data set: :func:`~dens_ocp.data.records.oc20_records.geometry`, ``y``
    adsorption energy in eV, ``force`` (N, 3) float32 eV/Angstrom, ``fid``."""
    return add_s2ef_labels(geometry(frame.atoms, system.sid), frame.energy, frame.forces, frame.fid)


def is2re(system: System, trajectory: Sequence[Frame]) -> Data:
    """A record of an IS2RE data set: ``pos``, ``y_init`` of the first frame, ``pos_relaxed``,
    ``y_relaxed`` of the last one; the rest as :func:`s2ef`, without ``y``, ``force``, ``fid``."""
    first, last = trajectory[0], trajectory[-1]
    data = geometry(first.atoms, system.sid)
    data.y_init, data.y_relaxed = first.energy, last.energy
    data.pos_relaxed = geometry(last.atoms, system.sid).pos
    return data


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
