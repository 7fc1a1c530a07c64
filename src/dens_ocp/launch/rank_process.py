"""What a process of a run does: one rank, until the process ends."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from fairchem.core._cli import Runner
from fairchem.core.common.utils import setup_logging

from dens_ocp.checkpoints import run_start
from dens_ocp.errors import DensError
from dens_ocp.launch import signals
from dens_ocp.launch.data_workers import restore_num_workers

_FORMAT = "%(asctime)s (%(levelname)s): %(message)s"


def run_launched_rank(config: dict[str, Any]) -> None:
    """:func:`run_rank` in a process that no process of ours has started: it says what begins."""
    if config["mode"] == "train" and os.environ.get("RANK", "0") == "0":
        set_up_log()
        say_what_begins(config)
    run_rank(config)


def run_rank(config: dict[str, Any]) -> None:
    """Run one rank of a job; a mistake of the user's ends it with a message and exit code 2.

    Args:
        config: fairchem's config of the run.
    """
    restore_num_workers(config)
    if config["mode"] == "train":
        signals.listen()
        set_up_log()
    try:
        Runner()(going_on(config))
    except DensError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def set_up_log() -> None:
    """fairchem's, with lines that begin with the time, and not with the path of a module."""
    setup_logging()
    for handler in logging.getLogger().handlers:
        if "%(pathname)s" in (getattr(handler.formatter, "_fmt", None) or ""):
            handler.setFormatter(logging.Formatter(_FORMAT, "%Y-%m-%d %H:%M:%S"))


def say_what_begins(config: dict[str, Any]) -> None:
    """Log the first line of a training run.

    Args:
        config: of the run: ``mode``, ``run_dir``, ``timestamp_id``, ``checkpoint``.
    """
    config = going_on(config)
    run_dir, name = config.get("run_dir") or ".", config["timestamp_id"]
    logging.info("%s", run_start.first_line(run_dir, name, config["checkpoint"]))


def going_on(config: dict[str, Any]) -> dict[str, Any]:
    """The config of a job that SLURM has started again: its own checkpoint goes before the one of
    ``--checkpoint``, from which fairchem would start anew (``tasks/task.py:37``).

    Args:
        config: of the run; not changed.
    """
    if config["mode"] != "train" or not config["checkpoint"] or not config["timestamp_id"]:
        return config
    if int(os.environ.get("SLURM_RESTART_COUNT", 0)) == 0:
        return config
    folder = Path(config["run_dir"], "checkpoints", config["timestamp_id"])
    if not any(folder.glob("checkpoint*.pt")):
        return config
    logging.info("The job was restarted and resumes from the checkpoint in %s", folder)
    return {**config, "checkpoint": None}
