"""What the demo prints while a model is trained."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

_STEP = re.compile(r"step (\d+) of \d+, epoch [^,]*, (.*), [^,]* left$")
_VALIDATION = re.compile(r"validation at step \d+: (.*)")


class TrainingProgress:
    """Chooses among the log lines of a training run, and says which run it is.

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
        now = time.monotonic() - self.started
        if found := _VALIDATION.search(line):
            self.write(f"{self.label}  {now:4.0f} s  validation: {found[1]}")
        elif found := _STEP.search(line):
            if now - self._last < self.every and int(found[1]) < self.total_steps:
                return
            self._last = now
            self.write(
                f"{self.label}  {now:4.0f} s  step {found[1]}/{self.total_steps}  {found[2]}"
            )
