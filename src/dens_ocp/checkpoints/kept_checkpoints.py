"""The checkpoints of a run: written whole, the last few kept, damaged ones passed over.

``checkpoint.pt`` is the newest, ``checkpoint.<step>.pt`` are those before it.
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from dens_ocp import whole_files
from dens_ocp.checkpoints import checkpoint_files
from dens_ocp.errors import DensError

NEWEST = "checkpoint.pt"
BEST = "best_checkpoint.pt"
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of files of torch < 1.6, which hold no checksums."""


def older(folder: str | os.PathLike[str]) -> list[tuple[int, Path]]:
    """Step and path of the kept checkpoints beside ``checkpoint.pt``, newest first."""
    found = [
        (int(match[1]), path)
        for path in Path(folder).iterdir()
        if (match := re.fullmatch(r"checkpoint\.(\d+)\.pt", path.name))
    ]
    return sorted(found, reverse=True)


def write(state: Any, path: Path, keep_as: Path | None = None) -> None:
    """Save ``state`` so that ``path`` is always a whole file: the new one or the one before.

    Args:
        state: anything for ``torch.save``. path: the final name.
        keep_as: the name under which the file that stands at ``path`` now is kept.

    Raises:
        OSError: it could not be written. ``path`` is what it was; nothing else is left.
    """
    temporary = path.with_name(f".{path.name}.unfinished")
    try:
        try:
            torch.save(state, temporary)
        except RuntimeError as error:
            # torch's writer says where it failed, not why: "PytorchStreamWriter failed writing
            # file data/4: file write failed", then "unexpected pos 704 vs 598"
            if not re.search(r"PytorchStreamWriter|unexpected pos|Parent directory", str(error)):
                raise
            raise _reason(temporary, error) from None
        if keep_as is not None and path.exists():
            keep_as.unlink(missing_ok=True)
            try:
                os.link(path, keep_as)
            except OSError:  # a file system without hard links; resume looks for both names
                os.replace(path, keep_as)
        whole_files.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _reason(path: Path, error: RuntimeError) -> OSError:
    """Write on, to learn from the system why torch could not."""
    try:
        with open(path, "ab") as file:
            file.write(b"\0" * (1 << 20))
            os.fsync(file.fileno())
    except OSError as reason:
        return reason
    return OSError(None, str(error).splitlines()[0])


def prune(folder: str | os.PathLike[str], step: int, keep: int) -> None:
    """Leave ``keep - 1`` checkpoints beside that of ``step``, none of which is of a later step.

    (Later ones are there when a run was resumed from an earlier one: :func:`set_aside`.)
    """
    files = older(folder)
    for number, path in files:
        if number >= step:
            os.replace(path, _aside(path))
    for _, path in [each for each in files if each[0] < step][max(keep - 1, 0) :]:
        path.unlink(missing_ok=True)


def set_aside(folder: str | os.PathLike[str], after: int, best: float | None) -> list[str]:
    """Keep, under other names, the checkpoints that a run resumed from an earlier one replaces.

    They get ``replaced.`` in front of their names (``replaced-2.`` and so on where that is taken).
    A damaged ``checkpoint.pt`` is left to be written over.

    Args:
        folder: of the run.
        after: step that the run goes on from; later ones are set aside. -1: all.
        best: metric of the best checkpoint that the run goes on with, or None;
            ``best_checkpoint.pt`` is set aside if it has another one.

    Returns:
        The new names.
    """
    folder = Path(folder)
    chosen = [path for number, path in older(folder) if number > after]
    newest, best_one = folder / NEWEST, folder / BEST
    content = _content(newest)
    if content is not None and content.get("step", after + 1) > after:
        chosen.insert(0, newest)
    names = {path: _aside(path) for path in chosen}
    for path, name in names.items():
        os.replace(path, name)
    metrics = (_content(best_one) or {}).get("val_metrics") or {}
    # (after a damaged checkpoint.pt the run repeats its own steps, and finds its best again)
    goes_elsewhere = content is not None or after < 0
    if goes_elsewhere and metrics and best not in [each.get("metric") for each in metrics.values()]:
        names[best_one] = _aside(best_one)
        shutil.copy2(best_one, names[best_one])  # it may be what --checkpoint names
    return [name.name for name in names.values()]


def _content(path: Path) -> dict[str, Any] | None:
    """Of a whole checkpoint; None: not there, or damaged. Tensors stay in the file."""
    if not path.is_file() or damage(path) is not None:
        return None
    try:
        return checkpoint_files.read_content(path, "cpu", mmap=True)
    except DensError:  # it needs more than plain values
        return {}


def _aside(path: Path) -> Path:
    marks = itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
    names = (path.with_name(f"replaced{mark}.{path.name}") for mark in marks)
    return next(name for name in names if not name.exists())


def remove_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what a killed run was writing."""
    for path in Path(folder).glob(".*.unfinished"):
        path.unlink(missing_ok=True)


def newest_whole(path: str | os.PathLike[str]) -> Path:
    """``path``, or the newest kept checkpoint before it, if it is damaged or not there.

    Only a file named ``checkpoint.pt`` has others before it.

    Raises:
        DensError: none of them is whole.
    """
    path = Path(path)
    if not path.exists() and path.name != NEWEST:
        raise DensError(f"checkpoint: {path} does not exist; check the path given to --checkpoint")
    kept = []
    if path.name == NEWEST and path.parent.is_dir():
        kept = [file for _, file in older(path.parent)]
    seen = []
    for file in [path, *kept]:
        reason = damage(file)
        if reason is None:
            if seen:
                logging.warning("checkpoint: %s; resuming from %s", "; ".join(seen), file)
            return file
        seen.append(f"{file} is damaged ({reason})" if file.exists() else f"{file} does not exist")
    raise DensError(
        f"checkpoint: {'; '.join(seen)}; there is no older one next to it; start again with "
        "another --timestamp-id, or give an intact --checkpoint"
    )


def check_whole(path: str) -> None:
    """Refuse a damaged checkpoint.

    Raises:
        DensError: it is damaged; one that was kept beside it is named.
    """
    reason = damage(path)
    if reason is not None:
        kept = [str(file) for _, file in older(Path(path).parent)]
        raise DensError(
            f"checkpoint: {path} is damaged ({reason}); use another one"
            + (f", for example {kept[0]}" if kept else "")
        )


def damage(path: str | os.PathLike[str]) -> str | None:
    """What is wrong with a file of ``torch.save``, or None.

    torch's own reader does not compare the checksums that its writer leaves: of a flipped bit it
    makes another number. This reads the whole file, as torch does.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(len(_LEGACY))
            if not head:
                return "empty"
            if head == _LEGACY:
                return None
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            for entry in entries:
                archive.open(entry).close()  # compares the two places where its name stands
        wanted = {entry.filename.partition("/")[2]: entry.CRC for entry in entries}
        reader = torch._C.PyTorchFileReader(str(path))
        if set(reader.get_all_records()) != set(wanted):
            return "its table of contents is damaged"
        for name, checksum in wanted.items():
            if zlib.crc32(reader.get_record(name)) != checksum:
                return f"wrong checksum of {name}"
        return None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        return (str(error) or type(error).__name__).splitlines()[0]
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, UnicodeDecodeError) as error:
        return f"{type(error).__name__}: {error}"
