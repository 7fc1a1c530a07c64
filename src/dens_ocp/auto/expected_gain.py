"""Is DeNS likely to pay? What trainings like this one have gained from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

NEAREST = 3
FARTHEST = 1.0
"""The largest distance at which a training says something about another: a factor of ten in one of
structures, epochs and parameters, or smaller factors in two or three of them."""


@dataclass(frozen=True)
class Measured:
    """Two trainings of the same length, with and without DeNS.

    Attributes:
        data: what they were trained on. source: where the numbers are.
        structures, epochs, parameters: of the training.
        gain: how much lower the force MAE on structures not seen is with DeNS, percent.
        error: standard error of it over seeds, percent; None: one seed.
    """

    data: str
    source: str
    structures: int
    epochs: float
    parameters: int
    gain: float
    error: float | None = None

    def distance(self, structures: float, epochs: float, parameters: float | None) -> float:
        """How unlike a training is: root of the sum of squared decimal logarithms of the ratios."""
        pairs = [(self.structures, structures), (self.epochs, epochs)]
        if parameters is not None:
            pairs.append((self.parameters, parameters))
        return math.hypot(*(math.log10(one / other) for one, other in pairs))


_PAPER = "arXiv 2403.09549, one seed"
MEASURED: tuple[Measured, ...] = (
    Measured("OC20 2M", _PAPER, 2_000_000, 12, 83_000_000, 6.7),
    Measured("OC20 2M", _PAPER, 2_000_000, 20, 83_000_000, 6.1),
    Measured("OC20 2M", _PAPER, 2_000_000, 30, 83_000_000, 7.2),
    Measured("slabs with H and NNH", "docs/results.md, one seed", 633, 20, 541_763, -1.6),
    Measured("slabs with H and NNH", "docs/results.md, one seed", 633, 40, 541_763, -5.1),
    Measured("acetylacetone", "docs/results.md", 450, 40, 1_101_187, 10.0, 3.2),
    Measured("acetylacetone", "docs/results.md", 450, 80, 1_101_187, 25.7, 3.2),
)


def nearest(
    structures: float,
    epochs: float,
    parameters: float | None = None,
    measured: Sequence[Measured] = MEASURED,
) -> list[Measured]:
    """The measured trainings that are most like one, the likest first; none that is farther than
    :data:`FARTHEST`.

    Args:
        structures: in the training set. epochs: of the training. parameters: of the model; None:
            not known.
    """
    ordered = sorted(measured, key=lambda each: each.distance(structures, epochs, parameters))
    near = [each for each in ordered if each.distance(structures, epochs, parameters) <= FARTHEST]
    return near[:NEAREST]


def expectation(found: Sequence[Measured]) -> str:
    """In words, from the measured trainings that are most like one."""
    if not found:
        return (
            "no measured training is similar to this one, so it is not known whether DeNS lowers "
            "the errors; `dens-ocp ablate` measures it"
        )
    lowest, highest = min(each.gain for each in found), max(each.gain for each in found)
    clear = [each.gain > 2 * (each.error or 0.0) for each in found]
    if all(clear):
        likely = "DeNS is likely to lower the errors"
    elif not any(clear):
        likely = "DeNS is not likely to lower the errors"
    else:
        likely = "it is not clear whether DeNS lowers the errors"
    return (
        f"{likely}: force errors {lowest:g} to {highest:g} % lower with DeNS in the most "
        "similar trainings (negative: higher)"
    )
