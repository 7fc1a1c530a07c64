"""Reads the scalars of a wandb run from the file it leaves on disk, online or offline.

``wandb/[offline-]run-<date>_<id>/run-<id>.wandb`` is a log in LevelDB's format: blocks of 32 KiB,
in them records with a header of 7 bytes (checksum, length, type) and, after a file header of 7
bytes, protobuf messages of wandb's own ``Record``. wandb has no public reader of it; its own
one was removed from the package.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.results.report.scalars import Series, collected

_BLOCK = 32768
_FILE_HEADER = 7
_RECORD_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _LAST = 1, 2, 4


def run_files(folder: Path) -> list[Path]:
    """The ``.wandb`` files below ``folder``, oldest first (a run that went on has several)."""
    return sorted(Path(folder).rglob("run-*.wandb"), key=lambda path: path.stat().st_mtime)


def read_wandb(folder: Path) -> Series:
    """All numbers logged to the wandb runs below ``folder``.

    A file cut short (the run was killed) is read up to there.

    Raises:
        DensError: no such files, or one of another format.
    """
    files = run_files(folder)
    if not files:
        raise DensError(f"{folder} holds no wandb run (run-*.wandb)")
    return collected(row for path in files for row in _rows(path))


def _rows(path: Path) -> Iterator[tuple[str, int, float]]:
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    if content[:4] != b":W&B":
        raise DensError(f"{path} is not a wandb run file; read it with a logger of this version")
    for message in _messages(content):
        try:
            record = Record.FromString(message)
        except DecodeError:
            return
        if record.WhichOneof("record_type") != "history":
            continue
        numbers = {item.key or ".".join(item.nested_key): item.value_json
                   for item in record.history.item}  # fmt: skip
        step = record.history.step.num
        for tag, text in numbers.items():
            value = json.loads(text)
            if tag.startswith("_") or isinstance(value, (bool, str, list, dict)) or value is None:
                continue
            yield tag, step, float(value)


def _messages(content: bytes) -> Iterator[bytes]:
    """Messages of a LevelDB log, put together from their pieces; ends where the file does."""
    at, parts = _FILE_HEADER, []
    while at + _RECORD_HEADER.size <= len(content):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD_HEADER.size:  # padding of a block
            at += left
            continue
        _, length, kind = _RECORD_HEADER.unpack_from(content, at)
        at += _RECORD_HEADER.size
        piece = content[at : at + length]
        at += length
        if kind == 0 or len(piece) < length:
            return
        if kind in (_FULL, _FIRST):
            parts = []
        parts.append(piece)
        if kind in (_FULL, _LAST):
            yield b"".join(parts)
