"""What a training run says of itself: one short line each ``--print-every`` steps, the rest in a
file.

fairchem-core 1.10.0 prints all metrics in one line of several hundred characters, with two digits,
eV, and no end in sight (``trainers/ocp_trainer.py:180``).
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairchem.core.common import distutils

from dens_ocp.checkpoints import metrics_file
from dens_ocp.training.metric_errors import Sums

_SHOWN = (
    ("energy_mae", "energy MAE"),
    ("forces_mae", "force MAE"),
    ("dens_noise_mae", "noise MAE"),
)
_ERRORS = ("mae", "rmse", "magnitude_error")


def shown(name: str, value: float) -> str:
    """A metric with its unit: energies in meV, forces in meV/A.

    >>> shown("forces_mae", 0.0234567), shown("energy_mse", 0.25), shown("dens_noise_mae", 0.07)
    ('23.5 meV/A', '0.25', '0.07 A')
    """
    if not name.endswith(_ERRORS):
        return f"{value:.4g}"
    if name == "dens_noise_mae":
        return f"{value:.3g} A"
    target = name.removeprefix("dens_")
    for start, unit in (("energy", "meV"), ("forces", "meV/A")):
        if target.startswith(start):
            return f"{1000 * value:.{0 if abs(value) >= 1 else 1}f} {unit}"
    return f"{value:.4g}"


def summary(metrics: Mapping[str, float], primary: str | None = None) -> str:
    """Loss and errors that are looked at, in one phrase."""
    parts = [f"loss {metrics['loss']:.4g}"] if "loss" in metrics else []
    parts += [f"{label} {shown(name, metrics[name])}" for name, label in _SHOWN if name in metrics]
    if primary is not None and primary in metrics and primary not in dict(_SHOWN):
        parts.append(f"{primary} {shown(primary, metrics[primary])}")
    return ", ".join(parts)


class TrainingLog:
    """Writes what a training run finds to the log, to ``metrics.jsonl`` and to fairchem's logger.

    Args:
        trainer: fairchem's. last_step: of the run. folder: gets ``metrics.jsonl``; None: no file.
    """

    def __init__(self, trainer: Any, last_step: int, folder: Path | None) -> None:
        self.trainer, self.last_step = trainer, last_step
        self.path = None if folder is None else folder / metrics_file.NAME
        self.first_step, self.started = trainer.step, time.monotonic()

    def step(self, sums: Sums) -> None:
        """Say, on rank 0, what the steps since the last line have found; nothing of no steps.

        Waits for the device.
        """
        if not distutils.is_master() or not sums:
            return
        trainer = self.trainer
        metrics = {name: each["metric"] for name, each in sums.fetch().items()}
        self._write("train", {"lr": trainer.scheduler.get_lr(), **metrics})
        seconds = time.monotonic() - self.started
        left = seconds / max(trainer.step - self.first_step, 1) * (self.last_step - trainer.step)
        logging.info(
            "step %d of %d, epoch %.4g of %g, %s, %s left",
            trainer.step,
            self.last_step,
            trainer.epoch,
            trainer.config["optim"]["max_epochs"],
            summary(metrics),
            datetime.timedelta(seconds=round(left)),
        )

    def validated(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Say, on rank 0, what a validation has found."""
        if not distutils.is_master():
            return
        values = {name: each["metric"] for name, each in metrics.items()}
        self._write("val", values)
        primary = self.trainer.primary_metric
        logging.info("validation at step %d: %s", self.trainer.step, summary(values, primary))

    def finished(self, best: Path, newest: Path, command: str) -> None:
        """The last line: best metric, its file, what to do next.

        Args:
            best, newest: checkpoints. command: the next one.
        """
        trainer = self.trainer
        found = f"checkpoint {newest}"
        if math.isfinite(trainer.best_val_metric) and best.is_file():
            name = trainer.primary_metric
            found = f"best {name} {shown(name, trainer.best_val_metric)} in {best}"
        logging.info(
            "finished after step %d of %d: %s; next: %s",
            trainer.step,
            self.last_step,
            found,
            command,
        )

    def _write(self, split: str, values: Mapping[str, float]) -> None:
        trainer = self.trainer
        if trainer.logger is not None:
            place = {"epoch": trainer.epoch, "step": trainer.step}
            trainer.logger.log({**values, **place}, step=trainer.step, split=split)
        if self.path is None:
            return
        place = {"step": trainer.step, "epoch": trainer.epoch, "time": round(time.time(), 3)}
        numbers = {
            name: float(value) if math.isfinite(value) else None for name, value in values.items()
        }
        line = json.dumps({"split": split, **place, **numbers}) + "\n"
        try:
            with open(self.path, "a+b") as file:
                if file.tell() and not _ends_a_line(file):
                    line = "\n" + line  # a killed run left half a line
                file.write(line.encode())
        except OSError as error:
            logging.warning("%s was not written: %s", self.path, error.strerror or error)


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, 2)
    return file.read(1) == b"\n"
