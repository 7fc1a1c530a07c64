"""Several multi-rank runs on one machine.

fairchem starts the ranks of a local run with torch's default rendezvous, which is one fixed port:
a second run on the machine meets the first one's.
"""

from __future__ import annotations

import uuid
from typing import Any

from torch.distributed.launcher.api import LaunchConfig


def local_launch_config(**options: Any) -> LaunchConfig:
    """torch's ``LaunchConfig`` with a rendezvous of its own, as ``torchrun --standalone`` has.

    Args:
        options: fairchem's: number of ranks, backend, restarts.
    """
    return LaunchConfig(rdzv_endpoint="localhost:0", run_id=uuid.uuid4().hex, **options)
