"""Runs the real command line in its own process and shows what it does while it does it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from dens_ocp.errors import DensError

_running: set[subprocess.Popen] = set()


def run_cli(
    arguments: list[str],
    *,
    log: Path,
    on_line: Callable[[str], None] | None = None,
    cwd: Path | None = None,
    threads: int | None = 1,
    inherited: Sequence[int] = (),
) -> None:
    """``dens-ocp main ...`` in a process of this interpreter; all its output goes to ``log``.

    Args:
        arguments: after ``dens-ocp main``.
        log: file to write.
        on_line: called with each line (progress bars' updates too) as it comes.
        cwd: folder to run in.
        threads: CPU threads of the process; None: as many as torch takes.
        inherited: file descriptors that the process keeps open as long as it lives.

    Raises:
        DensError: the process failed; the message has the reason it gave and names ``log``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
        **({} if threads is None else {"OMP_NUM_THREADS": str(threads)}),
    }
    command = [sys.executable, "-m", "dens_ocp.tools.cli", "main", *arguments]
    tail: list[str] = []
    with open(log, "w", encoding="utf-8") as file:
        file.write(" ".join(command) + "\n")
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            pass_fds=tuple(inherited),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,  # a carriage return ends a line too: updates of a progress bar
            encoding="utf-8",
            errors="replace",
        )
        _running.add(process)
        try:
            for line in filter(None, map(str.rstrip, process.stdout)):
                file.write(line + "\n")
                file.flush()
                tail = [*tail[-19:], line]
                if on_line is not None:
                    on_line(line)
            status = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            _running.discard(process)
    if status != 0:
        said = [line for line in tail if line.startswith("error: ")]
        reason = said[-1].removeprefix("error: ") if said else "\n".join(tail[-5:])
        raise DensError(f"dens-ocp main {' '.join(arguments)} failed (see {log}):\n{reason}")


def stop_running() -> None:
    """Tell all processes of :func:`run_cli`, in other threads, to stop."""
    for process in tuple(_running):
        process.terminate()
