"""Seconds of a step over atoms, edges, Lmax and batch size."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.cases import Case
from benchmarks.measure import Settings, measure
from benchmarks.variants import of

_RESOLUTION = {2: 10, 4: 14, 6: 18}
AXES = {
    "atoms of a structure": ((2, 2, 4), (3, 3, 4), (4, 4, 4), (5, 5, 4)),
    "neighbours of an atom": (10, 20, 40),
    "Lmax": tuple(_RESOLUTION),
    "structures in a batch": (1, 2, 4, 8),
}
NAMES = ("flat", "hydra", "ours", "fast")


def cases(base: Case, axes: dict[str, Sequence[Any]] = AXES) -> Iterator[tuple[str, float, Case]]:
    """Axis, value, and the case: ``base`` with one thing changed."""
    for axis, values in axes.items():
        for value in values:
            if axis == "atoms of a structure":
                changed = {"slab": value, "structures": 2}
                yield axis, value[0] * value[1] * value[2] + 1, dataclasses.replace(base, **changed)
            elif axis == "structures in a batch":
                yield axis, value, dataclasses.replace(base, structures=value)
            else:
                options = {"max_neighbors": value}
                if axis == "Lmax":
                    options = {"lmax_list": [value], "mmax_list": [2]}
                    if base.family == "eqv2":
                        options["grid_resolution"] = _RESOLUTION[value]
                yield axis, value, dataclasses.replace(base, options={**base.options, **options})


def run(
    base: Case, settings: Settings, axes: dict[str, Sequence[Any]] = AXES
) -> list[dict[str, Any]]:
    """Each point of each axis, measured like a case; adds ``axis`` and ``value``."""
    variants = [each for each in of(base) if each.name in NAMES]
    return [
        {"axis": axis, "value": value, **measure(case, variants, settings, prediction=False)}
        for axis, value, case in cases(base, axes)
    ]
