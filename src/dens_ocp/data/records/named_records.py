"""Records as they are read: put right, checked, and with their place in every message, also why
one cannot be read: damaged, not there, something else, without the labels asked for."""

from __future__ import annotations

import copy
import logging
import pickle
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
from torch.utils.data import Dataset
from torch_geometric.data import Data

from dens_ocp.data.records import record_pickles
from dens_ocp.data.records.record_checks import RecordRules, check_record
from dens_ocp.data.records.record_forms import KEY_MAPPING, put_right, rename_labels
from dens_ocp.data.records.record_ids import env_and_key, place_of
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
            (:func:`explained`); one that breaks ``rules``.
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
            f"{where} has no record left; check first_n, sample_n, max_atoms, subset_to and shard"
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
            "%s: the records have no sid, so results are named by the number of the record in "
            "the data set, counted from 0",
            where,
        )
    added = rename_labels(record, whole.reading.names)
    if added and getattr(whole, "key_mapping", None):
        logging.info(
            "%s.key_mapping: %s was added, because the records have these names", where, added
        )
    dataset[0]


# ---- why a record cannot be read --------------------------------------------------------------


def explained(dataset: Any, idx: int, error: Exception) -> DensError:
    """The error as one message, which says damage where it is damage. Found by reading what there
    is once more.

    Args:
        dataset: fairchem's ``lmdb``, ``oc22_lmdb``, ``ase_db`` or another, or ours.
        idx: what it was asked for.
        error: what it raised.
    """
    place = place_of(dataset, idx)
    reason = _reason_in_lmdb(dataset, idx) or _reason_in_ase_db(dataset, idx, error)
    if reason is None:
        reason = (
            f"cannot be read by {type(dataset).__name__} ({type(error).__name__}: {error}); "
            "check the record, and format, key_mapping and the other options of the data set"
        )
    return DensError(f"{place} {reason}")


def _reason_in_lmdb(dataset: Any, idx: int) -> str | None:
    found = env_and_key(dataset, idx)
    if found is None:
        return None
    env, key = found
    content = env.begin().get(f"{key}".encode("ascii"))
    if content is None:
        return (
            f"cannot be read: the file has no key {str(key)!r}, but records must have the keys "
            "0, 1, 2 and so on without a gap; write the file again, or copy it again if it is "
            "incomplete"
        )
    loads = record_pickles.loads if getattr(dataset, "loads_no_code", False) else pickle.loads
    try:
        record = loads(content)
    except record_pickles.RefusedGlobal as refused:
        return (
            f"needs {refused.wanted}, which no OCP record needs. Unpickling it could run any "
            "code that is in the file, so it was not read; if you trust the source of the file, "
            "read it with fairchem's format: lmdb"
        )
    except (ImportError, AttributeError) as error:
        return (
            f"cannot be read ({type(error).__name__}: {error}): it was pickled with classes that "
            "are not installed here; install their package, or write the record with "
            "torch_geometric.data.Data only"
        )
    except Exception as error:  # a damaged pickle can raise anything
        return (
            f"cannot be read ({type(error).__name__}: {error}): the LMDB is damaged or incomplete; "
            "copy it or write it again"
        )
    if not isinstance(record, Data):
        holds = f" with {', '.join(map(str, list(record)[:6]))}" if isinstance(record, dict) else ""
        return (
            f"is a {type(record).__name__}{holds}, but fairchem needs records that are "
            "torch_geometric.data.Data; write them again, "
            + ("pickle.dumps(Data(**record))" if holds else "one Data for each")
        )
    for old, new in (getattr(dataset, "key_mapping", None) or {}).items():
        for name in [new] if isinstance(new, str) else new:
            if name != old and old in record and name in record:
                return (
                    f"holds {old} and {name} both, and key_mapping renames {old} to {name}; "
                    f"leave {old} out of key_mapping if {name} is the label, otherwise remove "
                    f"{name} from the records"
                )
    return None


def _reason_in_ase_db(dataset: Any, idx: int, error: Exception) -> str | None:
    convert = getattr(dataset, "a2g", None)
    if convert is None:
        return None
    try:
        atoms = dataset.get_atoms(dataset.ids[idx])
    except Exception as why:  # ASE's, by the kind of file
        return (
            f"cannot be read by ASE ({type(why).__name__}: {why}); the file is damaged, or holds "
            "something else; write it again"
        )
    results = {} if atoms.calc is None else atoms.calc.results
    there = sorted(name for name, value in results.items() if value is not None)
    for name in ("energy", "forces", "stress"):
        if getattr(convert, f"r_{name}", False) and name not in there:
            return (
                f"has no {name} (its results: {', '.join(there) or 'none'}), which a2g_args "
                f"requests with r_{name}; add {name}, or remove the row from the database, or "
                "choose rows with select_args"
            )
    if getattr(convert, "r_stress", False) and np.shape(results["stress"]) not in ((6,), (3, 3)):
        return (
            f"has a stress of shape {np.shape(results['stress'])}, but ASE reads 6 numbers in "
            "Voigt order (xx yy zz yz xz xy); convert it with dens-ocp data materials FILE --out "
            "FOLDER"
        )
    if atoms.pbc.any() and atoms.cell.volume < 1e-6:
        return (
            f"is periodic (pbc {atoms.pbc.tolist()}) but its cell has no volume: "
            f"{atoms.cell.array.tolist()}; give the cell three vectors, or remove the row from "
            "the database"
        )
    for name in getattr(convert, "r_data_keys", None) or ():
        if name not in atoms.info:
            return (
                f"has no {name} in its info (it has: {', '.join(atoms.info) or 'nothing'}), "
                "which a2g_args requests in r_data_keys; add it, or remove the row"
            )
    return None
