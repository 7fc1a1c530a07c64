"""Data parallelism whose sums have the same order in every run."""

from __future__ import annotations

import warnings

import torch
from torch.nn.parallel.distributed import DistributedDataParallel

FIND_UNUSED = "ddp_find_unused_parameters"
"""Option of ``optim``: DDP looks for parameters outside the graph. Default: on CPUs."""


class FixedBuckets(DistributedDataParallel):
    """DDP that sums gradients in the same order at each step.

    It gathers gradients in buckets and lays them out anew after the first step, in the order in
    which they came. Where a gradient lies decides in which order gloo sums it over ranks, so with
    three ranks or more the first step after a resume differs by rounding. DDP does not do that
    when it looks for unused parameters.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module, find_unused_parameters=True)
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
