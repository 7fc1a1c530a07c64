"""Files that are there whole or not at all, also when the process is killed while it writes."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def replace(temporary: str | os.PathLike[str], final: str | os.PathLike[str]) -> None:
    """Give a written file its final name, in one step and only when it is on the disk."""
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, final)
    folder = os.open(Path(final).parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name, too
    except OSError:
        pass  # some network file systems cannot
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a file, and its folder if need be; what was there before stays until all is written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # two machines may write the same file of a shared folder
    temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
