"""LMDB files in many processes: each opens a file for itself.

An open LMDB environment cannot be pickled and must not be used in a child that was forked after it
was opened (LMDB's own rule). fairchem's data sets open theirs once and hand them to forked data
workers; its command line sets ``optim.num_workers`` to 0 for several ranks because of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import lmdb
from fairchem.core.datasets.lmdb_dataset import LmdbDataset

from dens_ocp.data.records.named_records import whole_data_set
from dens_ocp.gaps.lmdb_environments import SharedEnvironment


class LmdbEnvironment:
    """The part of ``lmdb.Environment`` that fairchem's data sets use; can be pickled and forked.

    Args:
        path: the file; opened, with fairchem's options, when it is read first in a process.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._opened: dict[int, lmdb.Environment] = {}  # by process; a parent's stay unused

    def path(self) -> str:
        return str(self._path)

    def begin(self, *args: Any, **options: Any) -> lmdb.Transaction:
        return self._here().begin(*args, **options)

    def stat(self) -> dict[str, int]:
        return self._here().stat()

    def close(self) -> None:
        if env := self._opened.pop(os.getpid(), None):
            env.close()

    def _here(self) -> lmdb.Environment:
        process = os.getpid()
        if process not in self._opened:
            self._opened[process] = LmdbDataset.connect_db(None, self._path)
        return self._opened[process]

    def __reduce__(self) -> tuple[Any, ...]:
        return LmdbEnvironment, (self._path,)


def reopen_in_each_process(dataset: Any) -> None:
    """Give fairchem's ``lmdb`` or ``oc22_lmdb`` data set, or a subset of one, such environments.

    Data sets that have no LMDB environment stay as they are.
    """
    dataset = whole_data_set(dataset)
    opened = (lmdb.Environment, SharedEnvironment)
    if isinstance(getattr(dataset, "env", None), opened):
        dataset.env = _replaced(dataset.env)
    envs = getattr(dataset, "envs", None)
    if envs and all(isinstance(env, opened) for env in envs):
        dataset.envs = [_replaced(env) for env in envs]


def _replaced(env: lmdb.Environment) -> LmdbEnvironment:
    path = env.path()
    env.close()
    return LmdbEnvironment(path)
