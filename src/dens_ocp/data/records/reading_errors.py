"""Why a record cannot be read: damaged, not there, something else, without the labels asked for.

Looked at only after an error, by reading what there is once more.
"""

from __future__ import annotations

import pickle
from typing import Any

from torch_geometric.data import Data

from dens_ocp.data.records import record_pickles
from dens_ocp.data.records.record_ids import env_and_key, place_of
from dens_ocp.errors import DensError


def explained(dataset: Any, idx: int, error: Exception) -> DensError:
    """The error as one message, which says damage where it is damage.

    Args:
        dataset: fairchem's ``lmdb``, ``oc22_lmdb``, ``ase_db`` or another, or ours.
        idx: what it was asked for.
        error: what it raised.
    """
    place = place_of(dataset, idx)
    reason = _reason_in_lmdb(dataset, idx) or _reason_in_ase_db(dataset, idx, error)
    if reason is None:
        reason = (
            f"cannot be read as {type(dataset).__name__} reads it ({type(error).__name__}: "
            f"{error}); look at the record, and at format, key_mapping and the other options of "
            "the data set"
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
            f"cannot be read: the file has no key {str(key)!r}, and records have the keys 0, 1, 2 "
            "and so on without a gap; write the file again, or copy it again if it is not whole"
        )
    loads = record_pickles.loads if getattr(dataset, "loads_no_code", False) else pickle.loads
    try:
        record = loads(content)
    except record_pickles.RefusedGlobal as refused:
        return (
            f"wants {refused.wanted}, which no OCP record needs; unpickling it can run any code "
            "that is in the file, so it was not done. If you trust where the file comes from, "
            "format: lmdb (fairchem's) reads it"
        )
    except (ImportError, AttributeError) as error:
        return (
            f"cannot be read ({type(error).__name__}: {error}): it was pickled with classes that "
            "are not installed here; install what they belong to, or write the record with "
            "torch_geometric.data.Data alone"
        )
    except Exception as error:  # a damaged pickle can raise anything
        return (
            f"cannot be read ({type(error).__name__}: {error}): the LMDB is damaged or incomplete; "
            "copy it or write it again"
        )
    if not isinstance(record, Data):
        holds = f" with {', '.join(map(str, list(record)[:6]))}" if isinstance(record, dict) else ""
        return (
            f"is a {type(record).__name__}{holds}, and fairchem reads records that are "
            "torch_geometric.data.Data; write them again, "
            + ("pickle.dumps(Data(**record))" if holds else "one Data for each")
        )
    for old, new in (getattr(dataset, "key_mapping", None) or {}).items():
        for name in [new] if isinstance(new, str) else new:
            if name != old and old in record and name in record:
                return (
                    f"holds {old} and {name} both, and key_mapping renames {old} to {name}; leave "
                    f"{old} out of key_mapping if {name} is the label, else take {name} out of the "
                    "records"
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
                f"has no {name} (its results: {', '.join(there) or 'none'}), which a2g_args asks "
                f"for with r_{name}; give it {name}, or leave it out of the database, or choose "
                "rows with select_args"
            )
    for name in getattr(convert, "r_data_keys", None) or ():
        if name not in atoms.info:
            return (
                f"has no {name} in its info (it has: {', '.join(atoms.info) or 'nothing'}), which "
                "a2g_args asks for in r_data_keys; add it, or leave the row out"
            )
    return None
