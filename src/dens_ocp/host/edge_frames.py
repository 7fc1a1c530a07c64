"""Random edge frames that repeat: the same structures, the same numbers, in every run.

EquiformerV2 and eSCN turn each edge into a frame with a random angle (``torch.rand_like`` in
``init_edge_rot_mat``), in every forward. Outputs move by rounding with it, so a run that was
restarted would differ from one that was not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from dens_ocp.host.record_ids import system_ids


def seed_of(seed: int, batch: Any) -> int:
    """A number of 63 bits from a run's seed and the ids (``sid``) of a batch, in their order."""
    text = f"{seed}:{','.join(system_ids(batch))}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@contextmanager
def seeded(seed: int, batch: Any, device: torch.device) -> Iterator[None]:
    """torch's generators start from :func:`seed_of` inside, and go on as before afterwards.

    A batch without ``sid`` (from ``OCPCalculator``) draws as it comes.
    """
    if "sid" not in batch:
        yield
        return
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed_of(seed, batch))
        yield
