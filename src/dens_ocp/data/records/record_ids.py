"""Ids of records: what names predictions and trajectories, and must be unique."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils

from dens_ocp.errors import DensError


def system_ids(batch: Any) -> list[str]:
    """``sid`` of each system of a batch."""
    sid = batch.sid
    return [str(each) for each in (sid.tolist() if isinstance(sid, torch.Tensor) else sid)]


def plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def record_id(record: Any, with_fid: bool = True) -> str:
    """``sid_fid`` of a record, or ``sid``: fairchem's ids in prediction files.

    Raises:
        DensError: a record without ``sid``.
    """
    sid, fid = getattr(record, "sid", None), getattr(record, "fid", None)
    if sid is None:
        raise DensError("a record has no sid, the name of its results; give every record one")
    return f"{plain(sid)}_{plain(fid)}" if with_fid and fid is not None else f"{plain(sid)}"


def names_of(batch: Any) -> list[str]:
    """``sid 12 fid 3`` of each system of a batch."""
    marks = {mark: getattr(batch, mark, None) for mark in ("sid", "fid", "id")}
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
        "record a sid (and fid) of its own"
    )
