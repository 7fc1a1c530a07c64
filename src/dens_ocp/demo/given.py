"""Data sets that the user gives in place of the embedded one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch_geometric.data import Data

from dens_ocp.demo.dataset import normalizers
from dens_ocp.demo.records import read_folder
from dens_ocp.demo.table import Labels, targets
from dens_ocp.errors import DensError


@dataclass(frozen=True)
class GivenData:
    """An S2EF data set read into memory.

    Attributes:
        ids, labels: of all records.
        elements: atomic numbers in each record.
        atoms: number of atoms of all records together.
        some: its first hundred records.
    """

    ids: list[str]
    labels: Labels
    elements: list[frozenset[int]]
    atoms: int
    some: list[Data]

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def normalizers(self) -> dict[str, dict[str, float]]:
        return normalizers(self.labels)

    def known_to(self, train: GivenData) -> np.ndarray:
        """(S,) bool: records without an element that ``train`` lacks. Nothing is learned about
        such an element: its embedding keeps its initial values."""
        learned = frozenset().union(*train.elements)
        return np.array([each <= learned for each in self.elements])


def read_given(option: str, path: Path) -> GivenData:
    """Read an S2EF LMDB, a file or a folder of them.

    Raises:
        DensError: no LMDB there, no records, records without ``y`` or ``force``.
    """
    records = read_folder(path)
    if not records:
        raise DensError(f"{option}: {path} holds no records; name a .lmdb file or a folder of them")
    for name in ("y", "force", "fixed", "sid", "fid"):
        if name not in records[0]:
            raise DensError(
                f"{option}: the records of {path} have no {name}; an S2EF data set is needed"
            )
    ids, labels = targets(records)
    if len(set(ids)) < len(ids):
        raise DensError(f"{option}: {path} has records with the same sid and fid; make them unique")
    elements = [frozenset(record.atomic_numbers.int().tolist()) for record in records]
    atoms = sum(int(record.natoms) for record in records)
    return GivenData(ids, labels, elements, atoms, records[:100])
