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

    name = logger.get("name") if isinstance(logger, dict) else logger
    try:
        wandb_login.check(logger)
    except DensError as error:
        yield Finding(
            PROBLEM if from_config else WARNING,
            "logger",
            str(error).partition(". ")[0],
            "wandb login; or export WANDB_MODE=offline; or --logger=tensorboard",
        )
        return
    text = str(name)
    if text.startswith("wandb"):
        mode = os.environ.get("WANDB_MODE")
        text += f", WANDB_MODE={mode}" if mode else ", with a key or a terminal to ask for it"
    yield Finding(OK, "logger", text)


def checkpoint_bytes(parameters: int, amsgrad: bool = False) -> int:
    """Size of ``checkpoint.pt``: weights, two moments of Adam (three with AMSGrad), EMA, float32.

    >>> checkpoint_bytes(1_000_000)
    16000000
    """
    return 4 * parameters * (5 if amsgrad else 4)


def check_run_folder(folder: Path, parameters: int | None = None) -> Iterator[Finding]:
    """Write access and free space.

    Args:
        folder: ``--run-dir``; created by a run, so its first folder that exists is looked at.
        parameters: of the model, to say what two checkpoints and a temporary one take.
    """
    existing = next(each for each in (folder.absolute(), *folder.absolute().parents)
                    if each.exists())  # fmt: skip
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".dens-ocp-doctor-") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        yield Finding(
            PROBLEM,
            "run-dir",
            f"{existing} cannot be written to: {error.strerror}",
            "--run-dir FOLDER with a folder of yours",
        )
        return
    free = shutil.disk_usage(existing).free
    text = f"{existing} is writable, {free / _GIB:.1f} GiB free"
    needed = 3 * checkpoint_bytes(parameters) if parameters else _GIB
    if parameters:
        text += f"; a checkpoint takes {checkpoint_bytes(parameters) / _GIB:.2f} GiB"
    if free < needed:
        yield Finding(
            PROBLEM,
            "run-dir",
            f"{text}; a run needs {needed / _GIB:.1f} GiB for checkpoints",
            f"free space on that file system (df -h {existing}), or --run-dir FOLDER elsewhere",
        )
    elif free < 5 * needed:
        yield Finding(WARNING, "run-dir", f"{text}: little", f"df -h {existing}")
    else:
        yield Finding(OK, "run-dir", text)
