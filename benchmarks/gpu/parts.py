"""What a part of the check is, and what it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.findings import Finding

QUICK_SECONDS = 5.0
"""A part of a rehearsal begins if so much time is left."""
QUICK_MOST = 30.0


@dataclass(frozen=True)
class Setting:
    """
    Attributes:
        device_name: ``cuda`` or ``cpu``. quick: tiny models.
        folder: of the check's output, absolute.
        deadline: by ``time.time()``, after which nothing is measured.
    """

    device_name: str
    quick: bool
    folder: Path
    deadline: float

    @property
    def device(self) -> torch.device:
        return torch.device(self.device_name)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def judges_speed(self) -> bool:
        """Times of a CPU or of tiny models say nothing about the bars."""
        return self.cuda and not self.quick

    def left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - time.time()

    def allows(self, seconds: float) -> bool:
        """Whether something that takes ``seconds`` on a GPU is begun."""
        return self.left() >= (QUICK_SECONDS if self.quick else seconds)


@dataclass(frozen=True)
class Part:
    """
    Attributes:
        name: of findings. function: of a setting and ``options``, yields findings.
        seconds: that it takes on an H100, about; it is skipped where fewer are left.
        most: seconds after which it is broken off.
        may_fail: that it cannot be done is no fault of ours.
    """

    name: str
    function: Callable[..., Iterator[Finding]]
    seconds: float
    most: float = 300.0
    options: dict[str, Any] = field(default_factory=dict)
    may_fail: bool = False

    def limit(self, quick: bool) -> float:
        """Seconds that it may take; a rehearsal does not wait for what may fail."""
        return min(self.most, QUICK_MOST) if quick and self.may_fail else self.most
