"""Data sets that the user gives in place of the embedded one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dens_ocp.data.structures import Structure, structure
from dens_ocp.errors import DensError
from dens_ocp.tools.demo.dataset import normalizers
from dens_ocp.tools.demo.labels import Labels, targets
from dens_ocp.tools.demo.records import read_folder


@dataclass(frozen=True)
class GivenData:
    """An S2EF data set read into memory.

    Attributes:
        structures: all of them.
        labels: their energies and forces.
    """

    structures: list[Structure]
    labels: Labels

    @property
    def count(self) -> int:
        return len(self.structures)

    @property
    def atoms(self) -> int:
        """Number of atoms of all structures together."""
        return sum(len(each.pos) for each in self.structures)

    @property
    def elements(self) -> frozenset[int]:
        """Atomic numbers."""
        return frozenset().union(*(each.atomic_numbers.tolist() for each in self.structures))

    @property
    def normalizers(self) -> dict[str, dict[str, float]]:
        return normalizers(self.labels)

    def known_to(self, train: GivenData) -> np.ndarray:
        """(S,) bool: structures without an element that ``train`` lacks. Nothing is learned about
        such an element: its embedding keeps its initial values."""
        learned = train.elements
        return np.array([learned.issuperset(s.atomic_numbers.tolist()) for s in self.structures])


def read_given(option: str, path: Path, unique: bool = False) -> GivenData:
    """Read an S2EF LMDB, a file or a folder of them.

    Raises:
        DensError: no LMDB there, no records, records without ``y`` or ``force``; with ``unique``,
            two with the same id.
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
    if unique and len(set(ids)) < len(ids):
        raise DensError(f"{option}: {path} has records with the same sid and fid; make them unique")
    return GivenData([structure(record) for record in records], labels)
