"""The process that starts the ranks of a run on one machine.

fairchem starts them with torch's default rendezvous, which is one fixed port: a second run on the
machine meets the first one's. A signal that asks to save and stop (SIGUSR1, SIGUSR2) ends this
process at once, and the ranks with it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import uuid
from typing import Any

from torch.distributed.launcher.api import LaunchConfig


def local_launch_config(**options: Any) -> LaunchConfig:
    """torch's ``LaunchConfig`` with a rendezvous of its own, as ``torchrun --standalone`` has.

    Args:
        options: fairchem's: number of ranks, backend, restarts.
    """
    return LaunchConfig(rdzv_endpoint="localhost:0", run_id=uuid.uuid4().hex, **options)


def signals_to_ranks() -> None:
    """From now on SIGUSR1 and SIGUSR2 go to the ranks, which save and end; then this one does.
    (SIGTERM torch's launcher hands on itself, and kills what is there 30 s later.)"""

    def hand_on(number: int, frame: Any) -> None:
        ranks = multiprocessing.active_children()
        if not ranks:
            sys.exit(128 + number)
        for rank in ranks:
            os.kill(rank.pid, number)

    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, hand_on)
