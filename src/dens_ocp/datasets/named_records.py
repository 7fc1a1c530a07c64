"""A record of a stock data set that cannot be read is named: file and key."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

from fairchem.core.datasets.lmdb_dataset import LmdbDataset
from fairchem.core.datasets.oc22_lmdb_dataset import OC22LmdbDataset

from dens_ocp.errors import DensError


class NamedLmdbDataset(LmdbDataset):
    """fairchem's ``lmdb``."""

    def __getitem__(self, idx: int) -> Any:
        return _read(super().__getitem__, self, idx, int(self.indices[idx]))


class NamedOC22LmdbDataset(OC22LmdbDataset):
    """fairchem's ``oc22_lmdb``."""

    def __getitem__(self, idx: int) -> Any:
        return _read(super().__getitem__, self, idx, int(idx))


def _read(getitem: Callable[[int], Any], dataset: Any, idx: int, number: int) -> Any:
    try:
        return getitem(idx)
    except DensError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DensError(
            f"{_name_of(dataset, number)} cannot be read ({type(error).__name__}: {error}); copy "
            "the LMDB or write it again if it is damaged"
        ) from error


def _name_of(dataset: Any, number: int) -> str:
    """File and key of the record ``number`` of all files."""
    envs = getattr(dataset, "envs", None)
    if not envs:
        return f"record {dataset._keys[number]} of {dataset.env.path()}"
    db = bisect.bisect(dataset._keylen_cumulative, number)
    key = dataset._keys[db][number - (dataset._keylen_cumulative[db - 1] if db else 0)]
    return f"record {key} of {envs[db].path()}"


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
