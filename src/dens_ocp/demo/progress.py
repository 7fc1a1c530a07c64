"""What the demo prints while a model is trained."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

_METRIC = re.compile(r"(\w+): (-?\d+\.\d+(?:e[+-]\d+)?)")


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
