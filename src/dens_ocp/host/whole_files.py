"""Files that are there whole or not at all, also when the run is killed while it writes."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairchem.core.common import distutils


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


@contextmanager
def whole_results(cmd: dict[str, Any]) -> Iterator[None]:
    """Results that fairchem writes inside the context appear when it ends, each in one step.

    fairchem writes ``*_predictions.npz`` and ``relaxed_positions.npz`` onto their final names
    (``trainers/base_trainer.py:1007``, ``trainers/ocp_trainer.py:695``).

    Args:
        cmd: ``config["cmd"]`` of the trainer; its ``results_dir`` points elsewhere inside.
    """
    if not distutils.is_master():
        yield
        return
    final = Path(cmd["results_dir"])
    temporary = final / ".unfinished"
    shutil.rmtree(temporary, ignore_errors=True)  # a killed run's
    temporary.mkdir(parents=True)
    try:
        cmd["results_dir"] = str(temporary)
        yield
        for file in sorted(temporary.iterdir()):
            replace(file, final / file.name)
            logging.info("Results are in %s", final / file.name)
    finally:
        cmd["results_dir"] = str(final)
        shutil.rmtree(temporary, ignore_errors=True)
