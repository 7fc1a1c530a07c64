"""Means, spreads and paired differences: pure numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Of one metric over seeds.

    Attributes:
        values: by seed.
        mean: of them.
        spread: standard deviation (n - 1); None for a single seed.
    """

    values: dict[int, float]
    mean: float
    spread: float | None


@dataclass(frozen=True)
class Difference:
    """Against the baseline, seed by seed.

    Attributes:
        seeds: how many both have.
        mean: of (variant - baseline), in the metric's unit; below 0: the variant is better.
        error: standard error of that mean, spread / sqrt(seeds); None for a single seed.
        gain_percent: 100 * (1 - variant / baseline), of the means over these seeds.
    """

    seeds: int
    mean: float
    error: float | None
    gain_percent: float


def _spread(values: list[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def summarise(values: Mapping[int, float]) -> Summary | None:
    """None without values."""
    if not values:
        return None
    return Summary(dict(values), sum(values.values()) / len(values), _spread(list(values.values())))


def paired(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """None if no seed has both.

    >>> paired({0: 8.0, 1: 9.0}, {0: 10.0, 1: 10.0})
    Difference(seeds=2, mean=-1.5, error=0.5, gain_percent=15.0)
    """
    seeds = [seed for seed in variant if seed in baseline]
    if not seeds:
        return None
    differences = [variant[seed] - baseline[seed] for seed in seeds]
    spread = _spread(differences)
    mean = sum(differences) / len(seeds)
    reference = sum(baseline[seed] for seed in seeds) / len(seeds)
    return Difference(
        len(seeds),
        mean,
        None if spread is None else spread / math.sqrt(len(seeds)),
        -100 * mean / reference if reference else math.nan,
    )
