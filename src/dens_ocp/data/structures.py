"""Labelled structures as arrays, read one by one through fairchem's own data sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from fairchem.core.common.registry import registry
from fairchem.core.datasets import create_dataset
from torch_geometric.data import Data

from dens_ocp.data.checks import check_dataset_paths
from dens_ocp.data.records.named_records import read_with
from dens_ocp.data.records.record_ids import record_id


@dataclass(frozen=True)
class Structure:
    """A structure and the labels that it has; of a test set, none.

    Attributes:
        id: ``sid_fid`` for S2EF records, ``sid`` for others: the id in prediction files.
        sid: id of the system, the name of its relaxation trajectory.
        atomic_numbers, tags: (N,) int64. fixed: (N,) bool.
        pos: (N, 3) Angstrom. cell: (3, 3) Angstrom, zeros where a record has none.
        energy: eV, or None. forces: (N, 3) eV/Angstrom, or None.
        stress: (3, 3) eV/Angstrom^3 with ASE's sign, or None.
        energy_relaxed: eV, or None. pos_relaxed: (N, 3) Angstrom, or None.
    """

    id: str
    sid: str
    atomic_numbers: np.ndarray
    tags: np.ndarray
    fixed: np.ndarray
    pos: np.ndarray
    cell: np.ndarray
    energy: float | None = None
    forces: np.ndarray | None = None
    stress: np.ndarray | None = None
    energy_relaxed: float | None = None
    pos_relaxed: np.ndarray | None = None

    @property
    def free(self) -> np.ndarray:
        """(N,) bool: atoms that move, those of prediction files."""
        return ~self.fixed


_CHOOSING = ("first_n", "sample_n", "max_atoms", "subset_to")
"""Options of a section that choose some of the records."""


def open_structures(section: Mapping[str, Any], name: str = "dataset") -> Structures:
    """Open the data set of a config section as fairchem would.

    Args:
        section: ``src``, ``format`` (default ``lmdb``), ``key_mapping`` (beside OC20's) and what
            else the format takes, and options that choose some of its records (``first_n``, ...);
            ``transforms`` are left out.
        name: of the section, for messages.

    Raises:
        DensError: the path is missing or holds no whole LMDB.
    """
    section = {"format": "lmdb", **section}
    section.pop("transforms", None)
    check_dataset_paths(section, name)
    choosing = {option for option in _CHOOSING if section.get(option) is not None}
    if choosing:
        if not choosing & {"first_n", "sample_n"}:  # fairchem takes one of the three
            section["no_shuffle"] = True
        dataset = create_dataset(section, "val")
    else:
        dataset = registry.get_dataset_class(section["format"])(section)
    read_with(dataset, numbered=True)
    return Structures(dataset)


class Structures:
    """The structures of a data set, each read when it is asked for."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Structure:
        return structure(self.dataset[index])

    def __iter__(self) -> Iterator[Structure]:
        return (self[index] for index in range(len(self)))


def structure(record: Data) -> Structure:
    """The arrays of an OC20 or OC22 record; energies and forces by their names in the LMDBs
    (``y``, ``force``, ``y_relaxed``) or fairchem's (``energy``, ``forces``, ``energy_relaxed``)."""

    def found(*names: str) -> np.ndarray | None:
        values = (getattr(record, name, None) for name in names)
        return next((np.asarray(each) for each in values if each is not None), None)

    natoms, tags, fixed, cell = len(record.pos), found("tags"), found("fixed"), found("cell")
    stress = found("stress")
    energy, relaxed = found("energy", "y"), found("energy_relaxed", "y_relaxed")
    return Structure(
        id=record_id(record),
        sid=record_id(record, with_fid=False),
        atomic_numbers=record.atomic_numbers.numpy().astype(np.int64),
        tags=np.zeros(natoms, np.int64) if tags is None else tags.astype(np.int64),
        fixed=np.zeros(natoms, bool) if fixed is None else fixed.astype(bool),
        pos=record.pos.numpy(),
        cell=np.zeros((3, 3), np.float32) if cell is None else cell.reshape(3, 3),
        energy=None if energy is None else float(energy.item()),
        forces=found("forces", "force"),
        stress=None if stress is None else stress.reshape(3, 3),
        energy_relaxed=None if relaxed is None else float(relaxed.item()),
        pos_relaxed=found("pos_relaxed"),
    )
