"""Runs the real command line in its own process and shows what it does while it does it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from dens_ocp.errors import DensError

_METRIC = re.compile(r"(\w+): (-?\d+\.\d+(?:e[+-]\d+)?)")
_LINE_END = re.compile(r"[\r\n]+")


def run_cli(
    arguments: list[str],
    *,
    log: Path,
    on_line: Callable[[str], None] | None = None,
    cwd: Path | None = None,
) -> None:
    """``dens-ocp main ...`` in a process of this interpreter; all its output goes to ``log``. One
    CPU thread a process.

    Args:
        arguments: after ``dens-ocp main``.
        log: file to write.
        on_line: called with each line (progress bars' updates too) as it comes.
        cwd: folder to run in.

    Raises:
        DensError: the process failed; the message has the reason it gave and names ``log``.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    command = [sys.executable, "-m", "dens_ocp.cli", "main", *arguments]
    tail: list[str] = []
    with open(log, "w", encoding="utf-8") as file:
        file.write(" ".join(command) + "\n")
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            for line in _lines(process.stdout):
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
    if status != 0:
        said = [line for line in tail if line.startswith("error: ")]
        reason = said[-1].removeprefix("error: ") if said else "\n".join(tail[-5:])
        raise DensError(f"dens-ocp main {' '.join(arguments)} failed (see {log}):\n{reason}")


def _lines(output: BinaryIO) -> Iterator[str]:
    """Lines as soon as they are there; a carriage return ends one too."""
    rest = ""
    while chunk := os.read(output.fileno(), 65536):
        *whole, rest = _LINE_END.split(rest + chunk.decode(errors="replace"))
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


class TrainingProgress:
    """Turns the log lines of a training run into short ones.

    Args:
        label: printed in front.
        total_steps: number of steps of the run.
        every: seconds between lines at least.
        write: prints a line.
    """

    def __init__(
        self,
        label: str,
        total_steps: int,
        every: float = 5.0,
        write: Callable[[str], None] = print,
    ) -> None:
        self.label, self.total_steps, self.every, self.write = label, total_steps, every, write
        self.started = time.monotonic()
        self._last = -every

    def __call__(self, line: str) -> None:
        values = {name: float(text) for name, text in _METRIC.findall(line)}
        now = time.monotonic() - self.started
        if "step" not in values or "lr" not in values:
            if values.get("forces_mae") is not None and "(INFO)" in line:
                self.write(
                    f"{self.label}  {now:4.0f} s  validation: "
                    f"energy MAE {1000 * values['energy_mae']:.0f} meV, "
                    f"force MAE {1000 * values['forces_mae']:.1f} meV/A"
                )
            return
        step = round(values["step"])
        if now - self._last < self.every and step < self.total_steps:
            return
        self._last = now
        terms = ", ".join(
            f"{name} {values[key]:.2f}"
            for name, key in (
                ("energy", "loss_energy"),
                ("forces", "loss_forces"),
                ("noise", "loss_noise"),
            )
            if key in values
        )
        forces = ""
        if "forces_mae" in values:
            forces = f", force MAE {1000 * values['forces_mae']:.0f} meV/A"
        self.write(
            f"{self.label}  {now:4.0f} s  step {step}/{self.total_steps}  "
            f"loss {values['loss']:.2f} ({terms}){forces}"
        )
