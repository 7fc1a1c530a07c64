"""fairchem's data set of ASE databases with a flag for folders without DeNS (``dens_ase_db``).

The name and the file that says so are those of EquiformerV3's code.
"""

from __future__ import annotations

import bisect
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from fairchem.core.datasets.ase_datasets import AseDBDataset
from torch_geometric.data import Data

SKIPS = "skip_dens.txt"
"""A file of this name, empty or not: no structure of the databases beside it is corrupted."""


class DeNSAseDBDataset(AseDBDataset):
    """fairchem's ``ase_db`` whose records carry ``skip_dens``: (1,) bool, (B,) in a batch.

    Args:
        config: fairchem's options.
    """

    @cached_property
    def _skips(self) -> list[bool]:
        """Of each database."""
        return [(Path(each.filename).parent / SKIPS).exists() for each in self.dbs]

    def __getitem__(self, idx: Any) -> Data | list[Data]:
        record = super().__getitem__(idx)
        if not isinstance(record, list):  # of a slice, whose records come through here too
            database = bisect.bisect(self._idlen_cumulative, idx)
            record.skip_dens = torch.tensor([self._skips[database]])
        return record
