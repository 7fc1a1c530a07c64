"""Where a run writes: logger, folder, space."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding

_GIB = 2**30


def check_logger(logger: object, from_config: bool) -> Iterator[Finding]:
    """Whether the logger can start.

    Args:
        logger: the config's ``logger``; ``wandb`` is what fairchem takes without one.
        from_config: whether a config said so; without one a missing key is a warning.
    """
    from dens_ocp.launch import wandb_login

    try:
        wandb_login.check(logger)
    except DensError as error:
        status, text = PROBLEM if from_config else WARNING, str(error).partition(". ")[0]
        fix = "wandb login; or export WANDB_MODE=offline; or --logger=tensorboard"
        yield Finding(status, "logger", text, fix)
        return
    text = str(logger.get("name") if isinstance(logger, dict) else logger)
    if text.startswith("wandb"):
        mode = os.environ.get("WANDB_MODE")
        text += f", WANDB_MODE={mode}" if mode else ", with a key or a terminal to ask for it"
    yield Finding(OK, "logger", text)


def checkpoint_bytes(parameters: int) -> int:
    """Size of ``checkpoint.pt``: weights, two moments of Adam, EMA, all float32.

    >>> checkpoint_bytes(1_000_000)
    16000000
    """
    return 4 * parameters * 4


def check_run_folder(folder: Path, parameters: int | None = None) -> Iterator[Finding]:
    """Write access and free space.

    Args:
        folder: ``--run-dir``; created by a run, so its first folder that exists is looked at.
        parameters: of the model, to say what two checkpoints and a temporary one take.
    """
    above = (folder.absolute(), *folder.absolute().parents)
    existing = next(each for each in above if each.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".dens-ocp-doctor-") as file:
            file.write(b"x" * 4096)
    except OSError as error:
        text = f"{existing} cannot be written to: {error.strerror}"
        yield Finding(PROBLEM, "run-dir", text, "--run-dir FOLDER with a folder of yours")
        return
    free, needed = shutil.disk_usage(existing).free, _GIB
    text = f"{existing} is writable, {free / _GIB:.1f} GiB free"
    if parameters:
        needed = 3 * checkpoint_bytes(parameters)
        text += f"; a checkpoint takes {needed / 3 / _GIB:.2f} GiB"
    if free < needed:
        text += f"; a run needs {needed / _GIB:.1f} GiB for checkpoints"
        fix = f"free space on that file system (df -h {existing}), or --run-dir FOLDER elsewhere"
        yield Finding(PROBLEM, "run-dir", text, fix)
    elif free < 5 * needed:
        yield Finding(WARNING, "run-dir", f"{text}: little", f"df -h {existing}")
    else:
        yield Finding(OK, "run-dir", text)
