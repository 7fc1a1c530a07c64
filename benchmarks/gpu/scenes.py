"""Cases of the check, and runners of their variants."""

from __future__ import annotations

import dataclasses
import gc
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks import batches
from benchmarks.cases import Case
from benchmarks.steps import Runner
from benchmarks.variants import of

QUICK_SLAB = (2, 2, 2)


def case(family: str, size: str, structures: int, quick: bool) -> Case:
    """The paper's model (``paper``: 12 layers, Lmax 6) or a small one (``3``: 3 layers, Lmax 4) on
    slabs of 37 atoms; with ``quick`` a tiny one on at most two slabs of 9.

    No atom of a slab of 37 has its 20th and 21st neighbour at one distance. Where the images of an
    atom in a small cell tie, devices keep different ones, and comparisons show that alone.
    """
    if quick:
        return Case(family, "tiny", "oc20", structures=min(structures, 2), slab=QUICK_SLAB)
    return Case(family, size, "oc20", structures=structures)


def without_dropout(some: Case) -> Case:
    """For comparisons: devices draw different random numbers."""
    if some.family != "eqv2":
        return some
    return dataclasses.replace(some, options={"alpha_drop": 0.0, "drop_path_rate": 0.0})


@contextmanager
def runners(
    some: Case, names: Sequence[str], device: torch.device, amp: bool = False
) -> Iterator[list[Runner]]:
    """Runners of the variants ``names``, with the same weights and batch.

    Args:
        amp: as the trainer's ``--amp``, which is without effect on a CPU.
    """
    gc.collect()  # trainers of earlier parts: they have references in circles
    if device.type == "cuda":
        torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        structures = batches.records(some.batch, some.structures, some.slab)
        data = batches.write(Path(folder) / "data", structures)
        variants = {each.name: each for each in of(some)}
        yield [
            Runner(variants[name], some, data, Path(folder), device, amp)
            for name in names
            if name in variants
        ]
