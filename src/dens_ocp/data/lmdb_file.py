"""Is an LMDB file whole? Answered with plain file reads, before LMDB maps the file.

LMDB maps a file into memory and trusts it: reading a page beyond the end of a file cut short kills
the process with SIGBUS, which Python cannot catch. The layout read here is that of LMDB 0.9 on
64-bit little-endian machines (``MDB_page``, ``MDB_meta``, ``MDB_db``, ``MDB_node`` in its mdb.c).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from dens_ocp.errors import DensError

_MAGIC = 0xBEEFC0DE
_DATA_VERSION = 1
_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper
# page; magic, version, address, map size; two trees, each pad, flags, depth, branch, leaf and
# overflow pages, entries, root; last page, transaction
_META = struct.Struct("<QHHHH IIQQ IHHQQQQQ IHHQQQQQ QQ".replace(" ", ""))
_NODE = struct.Struct("<HHHH")  # size or child page: low, high; flags (child: highest); key size
_BRANCH, _LEAF = 0x01, 0x02
_BIG_VALUE = 0x01
_NO_ROOT = 2**64 - 1


@dataclass(frozen=True)
class LmdbHeader:
    """What the newest complete transaction says of a file.

    Attributes:
        page_size: bytes.
        last_page: highest page number that was ever in use. A whole file may end before it.
        entries: number of keys, ``length`` included.
        root: page number of the root of the tree of keys.
    """

    page_size: int
    last_page: int
    entries: int
    root: int


def read_header(path: Path, option: str) -> LmdbHeader:
    """Read the header of an LMDB file and make sure that no page in use lies beyond its end.

    Costs two small reads for a file of full length.

    Args:
        path: the file.
        option: the option that named it, for messages.

    Raises:
        DensError: unreadable, empty, not an LMDB, or cut short.
    """
    try:
        with open(path, "rb") as file:
            return _checked_header(file.fileno(), path, option)
    except OSError as error:
        raise DensError(f"{option}: {path} cannot be read: {error.strerror}") from None


def _checked_header(descriptor: int, path: Path, option: str) -> LmdbHeader:
    size = os.fstat(descriptor).st_size
    if size == 0:
        raise DensError(f"{option}: {path} is an empty file (0 bytes); copy it or write it again")
    first = os.pread(descriptor, _META.size, 0)
    if len(first) >= 20 and struct.unpack_from("<I", first, 16)[0] != _MAGIC:
        raise DensError(
            f"{option}: {path} is not an LMDB file; OC20 and OC22 data have to be unpacked and "
            "preprocessed into *.lmdb files first"
        )
    if len(first) < _META.size:
        raise _cut_short(path, option, size)
    versions = _META.unpack(first)
    if versions[6] != _DATA_VERSION:
        raise DensError(
            f"{option}: {path} has LMDB data format {versions[6]}, known is {_DATA_VERSION}; "
            "write it again with LMDB 0.9 (Python package lmdb<2)"
        )
    page_size = versions[9]
    second = os.pread(descriptor, _META.size, page_size)
    if len(second) < _META.size or size < 2 * page_size:
        raise _cut_short(path, option, size)
    newest = max(versions, _META.unpack(second), key=lambda meta: meta[26])
    header = LmdbHeader(page_size, newest[25], newest[23], newest[24])
    if size < (header.last_page + 1) * page_size and not _whole(descriptor, size, header):
        raise _cut_short(path, option, size)
    return header


def _cut_short(path: Path, option: str, size: int) -> DensError:
    return DensError(
        f"{option}: {path} is cut short: it ends after {size} bytes, in the middle of its data "
        "(an interrupted copy or download, a full disk?); copy it or write it again"
    )


def _whole(descriptor: int, size: int, header: LmdbHeader) -> bool:
    """Whether every page of the tree of keys lies within the file.

    Needed for files that end before ``last_page``: LMDB leaves out pages at the end that were
    taken and given back within one transaction.
    """
    pending = [] if header.root == _NO_ROOT else [header.root]
    while pending:
        page = os.pread(descriptor, header.page_size, pending.pop() * header.page_size)
        if len(page) < header.page_size:
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
                    if number * header.page_size + _PAGE.size + (low | high << 16) > size:
                        return False
        except struct.error:
            return False
    return True
