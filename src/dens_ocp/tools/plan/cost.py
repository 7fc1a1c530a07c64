"""The model of cost as pure functions. Units: bytes, seconds, FLOP; rates per second.

docs/planning.md derives each and says where it stops being valid.
"""

from __future__ import annotations

import math

FLOAT = 4
"""Bytes of a float32, in which everything is trained and averaged."""

LATENCY = 10e-6
"""Seconds for a message from one GPU to the next."""

BACKWARD_SHARE = 2 / 3
"""Of forward and backward: the backward pass has two matrix products for each of the forward's."""


def static_bytes(parameters: int, amsgrad: bool, ema: bool, distributed: bool) -> dict[str, int]:
    """Memory of a GPU that does not depend on the batch, by what it is for.

    AdamW holds two moments (three with AMSGrad); DistributedDataParallel copies gradients into
    buckets (``gradient_as_bucket_view`` is off in fairchem).

    >>> sum(static_bytes(10, amsgrad=False, ema=True, distributed=True).values())
    240
    """
    each = FLOAT * parameters
    return {
        "weights": each,
        "gradients": each,
        "optimizer": each * (3 if amsgrad else 2),
        "EMA": each if ema else 0,
        "DDP buckets": each if distributed else 0,
    }


def steps_per_epoch(structures: int, gpus: int, batch: int) -> int:
    """Steps of every rank: each rank has ceil(structures / gpus), in batches, none dropped.

    >>> steps_per_epoch(100, 8, 4)
    4
    """
    return math.ceil(math.ceil(structures / gpus) / batch)


def ring_all_reduce_seconds(
    parameters: int, gpus: int, bandwidth: float, latency: float = LATENCY
) -> float:
    """Sum of the gradients over all GPUs: each sends and receives 2 (N-1)/N of them, in 2 (N-1)
    messages.

    >>> ring_all_reduce_seconds(250_000_000, 2, 1e9, latency=0.0)
    1.0
    """
    size = FLOAT * parameters
    return 2 * (gpus - 1) / gpus * size / bandwidth + 2 * (gpus - 1) * latency


def exposed_seconds(communication: float, compute: float, overlap: float) -> float:
    """What of the communication is not hidden: DDP sums gradients while backward goes on, and
    ``overlap`` is the share (0 to 1) of the backward pass during which that is free.

    >>> exposed_seconds(1.5, compute=3.0, overlap=0.5)
    0.5
    """
    return max(0.0, communication - overlap * BACKWARD_SHARE * compute)
