"""Records as they are read: put right, checked, and with their place in every message."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from torch.utils.data import Dataset

from dens_ocp.data.records.reading_errors import explained
from dens_ocp.data.records.record_checks import RecordRules, check_record
from dens_ocp.data.records.record_forms import KEY_MAPPING, put_right, rename_labels
from dens_ocp.data.records.record_ids import place_of
from dens_ocp.errors import DensError


@dataclass(frozen=True)
class _Reading:
    rules: RecordRules | None = None
    numbered: bool = False

    @cached_property
    def names(self) -> dict[str, str]:
        """The usual names of labels, but for those that are asked for as they are."""
        asked_for = {} if self.rules is None else self.rules.required
        return {old: new for old, new in KEY_MAPPING.items() if old not in asked_for}


def _getitem(self: Any, idx: Any) -> Any:
    try:
        record = self.stock.__getitem__(self, idx)
    except DensError:
        raise
    except Exception as error:  # fairchem's, ASE's, of what a pickle holds
        if isinstance(idx, slice) or (isinstance(error, IndexError) and idx >= len(self)):
            raise  # how an iteration ends
        raise explained(self, idx, error) from error
    if isinstance(record, list):  # a slice
        return record
    rename_labels(record, self.reading.names)
    put_right(record)
    if self.reading.numbered and getattr(record, "sid", None) is None:
        record.sid = int(idx)
    if self.reading.rules is not None:
        check_record(record, self.reading.rules, lambda: place_of(self, idx))
    return record


def _reduce(self: Any, protocol: int) -> tuple[Any, ...]:
    state = dict(object.__reduce_ex__(self, 2)[2])
    if "dbs" in state:
        state["dbs"] = [_without_environment(db) for db in state["dbs"]]
    return _restored, (self.stock, state)


@cache
def _reading_class(stock: type) -> type:
    """A subclass that an object of ``stock`` can change to; cannot be looked up by name, so it has
    its own way to be pickled."""
    members = {
        "__getitem__": _getitem,
        "__reduce_ex__": _reduce,
        "__module__": stock.__module__,
        "stock": stock,
        "reading": _Reading(),
    }
    return type(stock.__name__, (stock,), members)


def _restored(stock: type, state: dict[str, Any]) -> Any:
    dataset = stock.__new__(_reading_class(stock))
    dataset.__dict__.update(state)
    return dataset


def _without_environment(db: Any) -> Any:
    """A database of ASE that can be pickled; an ``aselmdb`` opens its file when it is read next."""
    if getattr(db, "_env", None) is None:
        return db
    db = copy.copy(db)
    db._env = None
    return db


def whole_data_set(dataset: Any) -> Any:
    """The data set that a subset is of; itself if it is none."""
    while hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return dataset


def read_with(dataset: Any, rules: RecordRules | None = None, numbered: bool = False) -> None:
    """From now on ``dataset[index]`` is put right, has fairchem's names of labels
    (:data:`~dens_ocp.data.records.record_forms.KEY_MAPPING`, beside the data set's own
    ``key_mapping``), is checked, and is named when it cannot be read. Can be pickled and forked as
    before.

    Args:
        dataset: any of fairchem's classes or ours, or a subset of one; changed in place. None and
            others stay as they are.
        rules: None: records are put right, and not checked.
        numbered: a record without ``sid`` gets its number in the data set as one.

    ``dataset[index]`` raises:
        DensError: a record that cannot be read, with file and key and what is wrong with it
            (:mod:`~dens_ocp.data.records.reading_errors`); one that breaks ``rules``.
    """
    dataset = whole_data_set(dataset)
    if not isinstance(dataset, Dataset):
        return
    if not hasattr(type(dataset), "stock"):
        dataset.__class__ = _reading_class(type(dataset))
    dataset.reading = _Reading(rules, numbered)


def check_first_record(dataset: Any, where: str) -> None:
    """Read the first record of a data set, before it is used.

    Where results are named by ``sid`` and the first record has none, records are named by their
    number in the data set from now on.

    Args:
        dataset: fairchem's data set or subset, after :func:`read_with`.
        where: the config section, for messages.

    Raises:
        DensError: an empty data set; a first record that cannot be read, or breaks the rules.
    """
    if len(dataset) == 0:
        raise DensError(
            f"{where} has no record left; look at first_n, sample_n, max_atoms, subset_to and shard"
        )
    whole = whole_data_set(dataset)
    index, part = 0, dataset
    while part is not whole:
        index, part = int(part.indices[index]), part.dataset
    try:
        record = whole.stock.__getitem__(whole, index)
    except Exception as error:
        raise explained(whole, index, error) from error
    rules = whole.reading.rules
    if rules is not None and rules.needs_sid and getattr(record, "sid", None) is None:
        whole.reading = _Reading(rules, numbered=True)
        logging.warning(
            "%s: its records have no sid, so results are named by the number of the record in the "
            "data set, from 0",
            where,
        )
    added = rename_labels(record, whole.reading.names)
    if added and getattr(whole, "key_mapping", None):
        logging.info("%s.key_mapping: %s added, which its records have", where, added)
    dataset[0]
