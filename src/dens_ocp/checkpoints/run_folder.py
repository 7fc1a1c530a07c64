"""The folder of a run: can be written, and belongs to one run at a time."""

from __future__ import annotations

import datetime
import errno
import fcntl
import logging
import os
import socket
from pathlib import Path
from typing import IO

from dens_ocp.errors import DensError

LOCK = "run.lock"


def check_run_dir(run_dir: str | os.PathLike[str]) -> None:
    """The folders that fairchem fills can be written.

    Raises:
        DensError: one cannot.
    """
    for folder in ("checkpoints", "results", "logs"):
        check_writable(Path(run_dir) / folder)


def check_writable(
    folder: str | os.PathLike[str],
    option: str = "--run-dir",
    goes_there: str = "checkpoints, results and logs are written there",
) -> None:
    """Make ``folder`` and write a file in it.

    Args:
        folder: to be written.
        option: that names it. goes_there: what is written; both for the message.

    Raises:
        DensError: that is not possible.
    """
    probe = Path(folder) / f".writable.{socket.gethostname()}.{os.getpid()}"
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        try:
            with open(probe, "wb") as file:
                file.write(b"\0" * 4096)
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        raise DensError(
            f"{option}: {folder} cannot be written ({error.strerror}); {goes_there}: give a "
            "folder that you can write to, on a disk with free space"
        ) from None


def claim(folder: str | os.PathLike[str]) -> IO[str]:
    """Take a run's folder of checkpoints for this process, as long as the returned file is open.

    The lock is POSIX's (``lockf``): it ends with the process, however that ends, so none is ever
    stale. ``flock`` would be passed on to forked data workers, which outlive a killed run by some
    seconds.

    Raises:
        DensError: another process has it, or the folder cannot be written.
    """
    path = Path(folder) / LOCK
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+")  # noqa: SIM115 (open as long as the run)
    except OSError as error:
        raise DensError(
            f"{folder} cannot be written ({error.strerror}); checkpoints are written there: give "
            "another --run-dir"
        ) from None
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            logging.warning(
                "%s: this file system has no locks (%s); make sure that no other run has the "
                "same --timestamp-id",
                folder,
                error.strerror,
            )
            return file
        file.seek(0)
        holder = file.read().strip() or "another process"
        raise DensError(
            f"{folder} is in use by {holder}; wait until it has ended, or give this run another "
            "--timestamp-id"
        ) from None
    job = f", SLURM job {os.environ['SLURM_JOB_ID']}" if "SLURM_JOB_ID" in os.environ else ""
    now = datetime.datetime.now().isoformat(" ", "seconds")
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}{job}, since {now}\n")
        file.flush()
    except OSError:
        pass  # a full disk; the lock is what counts
    return file
