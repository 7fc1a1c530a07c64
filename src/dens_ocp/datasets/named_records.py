"""A record of a stock data set that cannot be read is named: file and key."""

from __future__ import annotations

import bisect
from typing import Any

from fairchem.core.datasets.lmdb_dataset import LmdbDataset
from fairchem.core.datasets.oc22_lmdb_dataset import OC22LmdbDataset

from dens_ocp.errors import DensError


class _NamesRecords:
    def __getitem__(self, idx: int) -> Any:
        try:
            return super().__getitem__(idx)
        except DensError:
            raise
        except Exception as error:  # a damaged pickle can raise anything
            raise DensError(
                f"{self._name_of(idx)} cannot be read ({type(error).__name__}: {error}); copy the "
                "LMDB or write it again if it is damaged"
            ) from error

    def _name_of(self, idx: int) -> str:
        idx = self._index_of(idx)
        envs = getattr(self, "envs", None)
        if not envs:
            return f"record {self._keys[idx]} of {self.env.path()}"
        db = bisect.bisect(self._keylen_cumulative, idx)
        key = self._keys[db][idx - (self._keylen_cumulative[db - 1] if db else 0)]
        return f"record {key} of {envs[db].path()}"

    def _index_of(self, idx: int) -> int:
        return int(idx)


class NamedLmdbDataset(_NamesRecords, LmdbDataset):
    """fairchem's ``lmdb``."""

    def _index_of(self, idx: int) -> int:
        return int(self.indices[idx])


class NamedOC22LmdbDataset(_NamesRecords, OC22LmdbDataset):
    """fairchem's ``oc22_lmdb``."""


_NAMED = {LmdbDataset: NamedLmdbDataset, OC22LmdbDataset: NamedOC22LmdbDataset}


def name_unreadable_records(dataset: Any) -> None:
    """From now on ``dataset[index]`` raises :class:`DensError` with file and key.

    Args:
        dataset: fairchem's, or a subset of one, however it was made; changed in place. Data sets
            other than ``lmdb`` and ``oc22_lmdb`` stay as they are.
    """
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    if type(dataset) in _NAMED:
        dataset.__class__ = _NAMED[type(dataset)]
