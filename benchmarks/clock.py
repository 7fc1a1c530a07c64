"""Seconds of phases, wall clock and processor time; an inner phase is not counted in its outer."""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Clock:
    """Adds up seconds by phase.

    Attributes:
        wall, process: phase -> seconds. Processor time is of all threads of the process.
        kernel: phase -> the part of it that the operating system took, mostly to hand out and
            clear pages of memory: the C library gives large tensors back to it at once, and gets
            their pages again at the next use.
        user: phase -> the rest of processor time.
    """

    def __init__(self, device: torch.device, waits: bool = True) -> None:
        """
        Args:
            waits: for a GPU at both ends of each phase. Without it phases are the host's seconds,
                and a step runs as in training.
        """
        self._device, self._waits = device, waits and device.type == "cuda"
        self._running: list[str] = []
        self.wall: dict[str, float] = defaultdict(float)
        self.process: dict[str, float] = defaultdict(float)
        self.kernel: dict[str, float] = defaultdict(float)
        self.user: dict[str, float] = defaultdict(float)
        self._last = (0.0, 0.0, 0.0, 0.0)

    def _pass(self) -> None:
        """Give the time since the last call to the phase that runs."""
        if self._waits:
            torch.cuda.synchronize(self._device)
        process = time.process_time()
        kernel = resource.getrusage(resource.RUSAGE_SELF).ru_stime
        now = (time.perf_counter(), process, kernel, process - kernel)
        if self._running:
            for kind, after, before in zip(
                (self.wall, self.process, self.kernel, self.user), now, self._last, strict=True
            ):
                kind[self._running[-1]] += after - before
        self._last = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._pass()
        self._running.append(name)
        try:
            yield
        finally:
            self._pass()
            self._running.pop()

    def timed(self, name: str, function: Callable) -> Callable:
        """``function``, each call of which is a phase."""

        def call(*args: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*args, **options)

        return call
