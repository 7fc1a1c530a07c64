"""One LMDB file opened twice in a process, as for training and validation on the same file.

lmdb 2.3 and later refuse it, in a process that was forked from one that had it open too. Opened for
reading and without a lock, as fairchem's and ASE's data sets do it, a file is now opened once, and
closed with its last user. It can go when lmdb below 2.3 is all that is supported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import lmdb

FIRST = (2, 3)
"""The release of lmdb that refuses it."""

_stock = lmdb.open


@dataclass
class _Opened:
    environment: lmdb.Environment
    process: int
    users: int = 0


File = tuple[int, int]
"""Device and number: a file that has taken the place of another one is another file."""

_opened: dict[File, _Opened] = {}


class SharedEnvironment:
    """One user's ``lmdb.Environment``, with all that it has."""

    def __init__(self, file: File, opened: _Opened) -> None:
        self._file = file
        self._shared: _Opened | None = opened
        opened.users += 1

    def close(self) -> None:
        """Close it, if nobody else uses it."""
        opened = self._given_up()
        if opened is not None:
            opened.environment.close()

    def _given_up(self) -> _Opened | None:
        """What nobody of this process uses any more."""
        opened, self._shared = self._shared, None
        if opened is None:
            return None
        opened.users -= 1
        if opened.users or opened.process != os.getpid():
            return None
        if _opened.get(self._file) is opened:
            del _opened[self._file]
        return opened

    def __getattr__(self, name: str) -> Any:
        if self.__dict__.get("_shared") is None:
            raise lmdb.Error("Attempt to operate on closed/deleted/dropped object.")
        return getattr(self._shared.environment, name)

    def __enter__(self) -> SharedEnvironment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._given_up()  # a transaction may go on: lmdb closes it after the last one


def open_shared(path: str, *args: Any, **options: Any) -> Any:
    """``lmdb.open``, any number of times for a file that is only read and not locked."""
    if args or not options.get("readonly") or options.get("lock", True):
        return _stock(path, *args, **options)
    try:
        found = os.stat(os.path.join(path, "data.mdb") if options.get("subdir", True) else path)
    except OSError:
        return _stock(path, **options)  # whose message says what is missing
    file = found.st_dev, found.st_ino
    opened = _opened.get(file)
    if opened is not None and opened.process != os.getpid():
        opened.environment.close()  # inherited in a fork: the parent's stays open
        opened = None
    if opened is None:
        opened = _opened[file] = _Opened(_stock(path, **options), os.getpid())
    return SharedEnvironment(file, opened)


def after(_: ModuleType) -> None:
    """Let all that call ``lmdb.open`` find :func:`open_shared`."""
    if tuple(map(int, lmdb.__version__.split(".")[:2])) >= FIRST:
        lmdb.open = open_shared
