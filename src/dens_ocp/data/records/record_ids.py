"""Which record: its id, which names predictions and trajectories, and its name in messages."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils

from dens_ocp.errors import DensError

_MARKS = ("sid", "fid", "id")
Place = Callable[[], str]
"""Says, when it is asked, where a record lies: ``record 3 of data/train/data.0000.lmdb``."""


def system_ids(batch: Any) -> list[str]:
    """``sid`` of each system of a batch."""
    sid = batch.sid
    return [str(each) for each in (sid.tolist() if isinstance(sid, torch.Tensor) else sid)]


def plain(value: Any) -> Any:
    """A sid or fid: a number, a string, or the number in a tensor."""
    return value.item() if hasattr(value, "item") else value


def record_id(record: Any, with_fid: bool = True) -> str:
    """``sid_fid`` of a record, or ``sid``: fairchem's ids in prediction files.

    Raises:
        DensError: a record without ``sid``.
    """
    sid, fid = getattr(record, "sid", None), getattr(record, "fid", None)
    if sid is None:
        raise DensError("a record has no sid, which names its results; give every record one")
    return f"{plain(sid)}_{plain(fid)}" if with_fid and fid is not None else f"{plain(sid)}"


def name_of(record: Any, where: str, place: Place | None = None) -> str:
    """The record in words: config section and sid, fid and id; without these, its place."""
    marks = {mark: getattr(record, mark, None) for mark in _MARKS}
    shown = ", ".join(
        f"{mark} {plain(value) if torch.is_tensor(value) and value.numel() == 1 else value}"
        for mark, value in marks.items()
        if value is not None
    )
    if shown:
        return f"{where}: the record {shown}"
    return f"{where}: a record without sid" if place is None else f"{where}: {place()}"


def place_of(dataset: Any, idx: int) -> str:
    """Where the record ``idx`` of a fairchem data set lies: file and key, row or number."""
    if hasattr(dataset, "db_ids"):
        path, row = _row_of(dataset, idx)
        return f"row {row} of {path}"
    found = env_and_key(dataset, idx)
    if found is not None:
        env, key = found
        return f"record {key} of {env.path()}"
    return f"record {idx} of {getattr(dataset, 'config', {}).get('src', type(dataset).__name__)}"


def env_and_key(dataset: Any, idx: int) -> tuple[Any, int] | None:
    """File and key of a record of fairchem's LMDB data sets and ours; None: of another one."""
    keys = getattr(dataset, "_keys", None)
    if keys is None:
        return None
    # fairchem's oc22_lmdb takes no notice of its own indices
    sharded = getattr(dataset, "sharded", False)
    number = int(dataset.indices[idx]) if sharded else int(idx)
    envs = getattr(dataset, "envs", None)
    if not envs:
        return dataset.env, keys[number]
    db = bisect.bisect(dataset._keylen_cumulative, number)
    return envs[db], keys[db][number - (dataset._keylen_cumulative[db - 1] if db else 0)]


def _row_of(dataset: Any, idx: int) -> tuple[Any, Any]:
    number = int(dataset.ids[idx])
    db = bisect.bisect(dataset._idlen_cumulative, number)
    row = dataset.db_ids[db][number - (dataset._idlen_cumulative[db - 1] if db else 0)]
    return getattr(dataset.dbs[db], "filename", dataset.dbs[db]), row


def names_of(batch: Any) -> list[str]:
    """``sid 12 fid 3`` of each system of a batch."""
    marks = {mark: getattr(batch, mark, None) for mark in _MARKS}
    return [
        " ".join(f"{mark} {plain(values[i])}" for mark, values in marks.items()
                 if values is not None)
        for i in range(batch.natoms.numel())
    ]  # fmt: skip


def gathered(ids: Sequence[str]) -> list[str]:
    """The ids of all ranks on every rank; ranks that work on one graph together count once."""
    if distutils.get_world_size() == 1:
        return list(ids)
    mine = [] if gp_utils.initialized() and gp_utils.get_gp_rank() != 0 else list(ids)
    everyone: list[Any] = [None] * distutils.get_world_size()
    torch.distributed.all_gather_object(everyone, mine)
    return [each for rank in everyone for each in rank]


def check_unique(ids: Sequence[str], dataset: Any, where: str) -> None:
    """Every record has an id of its own.

    fairchem keeps one of each id without a word (``trainers/base_trainer.py:987``). That is right
    for the records its sampler repeats to give all ranks as many, and loses data otherwise.

    Args:
        ids: of all predictions, those of repeated records included; at least one per record.
        dataset: what was predicted; its first records are those that were repeated.
        where: the config section, for messages.

    Raises:
        DensError: two records with one id; the message has examples.
    """
    if len(set(ids)) == len(dataset):
        return
    counts = Counter(ids)
    counts.subtract(record_id(dataset[index]) for index in range(len(ids) - len(dataset)))
    twice = [each for each, count in counts.items() if count > 1]
    raise DensError(
        f"{where}: {len(dataset)} records have {len(set(ids))} ids (sid_fid, or sid); results of "
        f"records with the same id would be lost, for example {', '.join(twice[:5])}; give every "
        "record its own sid (and fid)"
    )
