"""Is an LMDB file whole, and how many records has it? Answered before anybody reads its pages.

LMDB maps a file into memory and trusts it: reading a page beyond the end of a file cut short kills
the process with SIGBUS, which Python cannot catch. Opening a file and asking for its statistics
reads the two pages at its start alone. The layout of the others is that of LMDB 0.9 on 64-bit
little-endian machines (``MDB_page``, ``MDB_meta``, ``MDB_node`` in its mdb.c).
"""

from __future__ import annotations

import os
import pickle
import struct
from itertools import islice
from pathlib import Path

import lmdb

from dens_ocp.data.records.record_pickles import loads_number
from dens_ocp.errors import DensError

AS_ASE = "set format: ase_db, and a2g_args: {r_energy: True, r_forces: True} to train on it"
_MAGIC = 0xBEEFC0DE
_START = struct.Struct("<16x II")  # of a file: page; magic, version
_META = struct.Struct("<128x Q 8x Q")  # root of the tree of keys; transaction
_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
_NODE = struct.Struct("<HHHH")  # size or child page: low, high; flags (child: highest); key size
_BRANCH, _LEAF = 0x01, 0x02
_BIG_VALUE = 0x01
_NO_ROOT = 2**64 - 1


def count_records(path: Path, option: str) -> int:
    """Number of records that fairchem sees in the file, which is whole.

    Costs a few small reads for a file of full length.

    Args:
        path: the file.
        option: the option that named it, for messages.

    Raises:
        DensError: unreadable, empty, not an LMDB of OCP's, or cut short; fewer records than
            ``length`` says.
    """
    try:
        with open(path, "rb") as file:
            size, start = os.fstat(file.fileno()).st_size, file.read(_START.size)
            if size == 0:
                raise DensError(
                    f"{option}: {path} is an empty file (0 bytes); copy it or write it again"
                )
            if size >= _START.size:
                _check_start(*_START.unpack(start), path, option)
            try:  # as fairchem opens it
                env = lmdb.open(str(path), subdir=False, readonly=True, lock=False)
            except lmdb.InvalidError:
                raise _cut_short(path, option, size) from None
            with env:
                page_size, last_page = env.stat()["psize"], env.info()["last_pgno"]
                if size < (last_page + 1) * page_size and not _whole(
                    file.fileno(), size, page_size
                ):
                    raise _cut_short(path, option, size)
                return _records(env, f"{option}: {path}", f"{option}: the entry 'length' of {path}")
    except OSError as error:
        raise DensError(f"{option}: {path} cannot be read: {error.strerror}") from None
    except lmdb.Error as error:
        raise DensError(f"{option}: {path} cannot be opened as an LMDB: {error}") from None


def _check_start(magic: int, version: int, path: Path, option: str) -> None:
    if magic != _MAGIC:
        raise DensError(
            f"{option}: {path} is not an LMDB file; unpack OC20 and OC22 data and preprocess "
            "them into *.lmdb files first"
        )
    if version != 1:
        raise DensError(
            f"{option}: {path} has LMDB data format {version}, but only 1 is known; write it "
            "again with LMDB 0.9 (Python package lmdb<2)"
        )


def _cut_short(path: Path, option: str, size: int) -> DensError:
    return DensError(
        f"{option}: {path} is cut short: it ends after {size} bytes, in the middle of its data "
        "(an interrupted copy or download, a full disk?); copy it or write it again"
    )


def _records(env: lmdb.Environment, file: str, entry: str) -> int:
    """Records of a whole file; ``file`` and ``entry`` begin the messages."""
    with env.begin() as transaction:
        length = transaction.get(b"length")
        starts = transaction.get(b"0") is not None
        first = islice(transaction.cursor().iternext(values=False), 4)
        keys = [each.decode(errors="replace") for each in first if each != b"length"]
        of_ase = not starts and transaction.get(b"nextid") is not None
    if of_ase:
        raise DensError(f"{file} is an ASE database, not an LMDB of OCP; {AS_ASE}")
    if keys and not starts:
        raise DensError(
            f"{file} has no key '0' (it has {', '.join(keys[:3])}, ...): fairchem reads "
            "records under the keys 0, 1, 2 and so on; write the file again with such keys"
        )
    entries = env.stat()["entries"]
    if length is None:
        return entries
    try:
        claimed = loads_number(length)
    except pickle.UnpicklingError:
        raise DensError(f"{entry} is not a pickled number; write it again") from None
    if claimed >= entries:
        raise DensError(
            f"{file} has {entries - 1} records, but its entry 'length' says {claimed}: it is "
            "incomplete; write it again"
        )
    return claimed


def _whole(descriptor: int, size: int, page_size: int) -> bool:
    """Whether every page of the tree of keys lies within the file.

    Needed for files that end before the last page that was ever in use: LMDB leaves out pages at
    the end that were taken and given back within one transaction.
    """
    metas = [
        _META.unpack(os.pread(descriptor, _META.size, start)) for start in (0, page_size)
    ]  # the newest complete transaction counts
    root, _ = max(metas, key=lambda meta: meta[1])
    pending = [] if root == _NO_ROOT else [root]
    while pending:
        page = os.pread(descriptor, page_size, pending.pop() * page_size)
        if len(page) < page_size:
            return False
        _, _, flags, lower, _ = _PAGE.unpack_from(page)
        if not flags & (_BRANCH | _LEAF):
            return False
        try:
            for offset in struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", page, _PAGE.size):
                low, high, node_flags, key_size = _NODE.unpack_from(page, offset)
                if flags & _BRANCH:
                    pending.append(low | high << 16 | node_flags << 32)
                elif node_flags & _BIG_VALUE:
                    (number,) = struct.unpack_from("<Q", page, offset + _NODE.size + key_size)
                    if number * page_size + _PAGE.size + (low | high << 16) > size:
                        return False
        except struct.error:
            return False
    return True
