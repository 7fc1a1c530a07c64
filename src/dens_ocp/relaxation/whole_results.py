"""fairchem's results are there whole or not at all, also when the run is killed while it writes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairchem.core.common import distutils

from dens_ocp import whole_files


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
            whole_files.replace(file, final / file.name)
            logging.info("Results are in %s", final / file.name)
    finally:
        cmd["results_dir"] = str(final)
        shutil.rmtree(temporary, ignore_errors=True)
