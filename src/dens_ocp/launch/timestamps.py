"""Names of runs that do not collide.

fairchem passes the time through float32, whose granularity is 128 s today: a second run started
within it takes the first one's name, resumes its checkpoint and trains no step.
"""

from __future__ import annotations

import datetime

import torch
from fairchem.core.common import distutils


def unique_timestamp(device: torch.device, suffix: str | None) -> str:
    """``YYYY-mm-dd-HH-MM-SS-microseconds[-suffix]``, the same on all ranks (rank 0's clock)."""
    now = datetime.datetime.now()
    # two integers, because a float64 is not there on every device
    parts = torch.tensor(
        [int(now.replace(microsecond=0).timestamp()), now.microsecond], device=device
    )
    distutils.broadcast(parts, 0)
    seconds, microseconds = parts.tolist()
    text = datetime.datetime.fromtimestamp(seconds).strftime("%Y-%m-%d-%H-%M-%S")
    return f"{text}-{microseconds:06d}" + (f"-{suffix}" if suffix else "")
