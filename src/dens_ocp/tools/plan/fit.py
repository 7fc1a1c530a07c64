"""From small models to the real one: what is measured grows linearly with blocks, atoms, edges.

Measured at two depths and three sizes, quantity q is::

    q(L, N, E) = (a0 + a1 L) + (n0 + n1 L) N + (e0 + e1 L) E

for L blocks, N atoms and E edges. Each depth gives three numbers from three sizes, two depths give
their growth with L; a third depth or a fourth size would test it (tests/tools/plan does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Growth:
    """Coefficients of the formula above: offset and slope with L of (constant, atom, edge)."""

    base: tuple[float, float, float]
    slope: tuple[float, float, float]

    def at(self, layers: int, atoms: float, edges: float) -> float:
        """The quantity for another depth and size; not below 0."""
        size = np.array([1.0, atoms, edges])
        return float(max(0.0, (np.array(self.base) + layers * np.array(self.slope)) @ size))

    def line(self, atoms: float, edges: float) -> tuple[float, float]:
        """Offset and slope with the number of blocks, at one size."""
        size = np.array([1.0, atoms, edges])
        return float(np.array(self.base) @ size), float(np.array(self.slope) @ size)


def fit(points: Mapping[tuple[int, float, float], float]) -> Growth:
    """The coefficients from values at (blocks, atoms, edges): two depths, three sizes of each.

    Args:
        points: (L, N, E) -> value. With more points than coefficients: least squares.

    Raises:
        ValueError: fewer than six points that tell the coefficients apart.
    """
    rows = np.array([[1, n, e, layers, layers * n, layers * e] for layers, n, e in points], float)
    values = np.array(list(points.values()), float)
    scale = np.abs(rows).max(axis=0)
    if len(points) < 6 or np.linalg.matrix_rank(rows / scale) < 6:
        raise ValueError("two depths with three sizes of other atoms and edges are needed")
    solution = np.linalg.lstsq(rows / scale, values, rcond=None)[0] / scale
    return Growth(tuple(solution[:3]), tuple(solution[3:]))


def without_constant(points: Mapping[tuple[int, float, float], float]) -> Growth:
    """As :func:`fit`, for quantities that have no part which is the same for every batch."""
    rows = np.array([[n, e, layers * n, layers * e] for layers, n, e in points], float)
    values = np.array(list(points.values()), float)
    scale = np.abs(rows).max(axis=0)
    solution = np.linalg.lstsq(rows / scale, values, rcond=None)[0] / scale
    return Growth((0.0, *solution[:2]), (0.0, *solution[2:]))


@dataclass(frozen=True)
class Line:
    """``y = offset + slope x``.

    Attributes:
        spread: root mean square of the relative residuals of the points.
    """

    offset: float
    slope: float
    spread: float

    def at(self, x: float) -> float:
        """y at x."""
        return self.offset + self.slope * x


def fit_line(x: Sequence[float], y: Sequence[float]) -> Line:
    """The line through points that makes the relative residuals least; times are noisy in
    proportion to their length. Offset and slope are not negative: neither an empty batch nor more
    work takes less than no time.
    """
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    scale = xs.max()
    rows = np.stack([np.ones_like(xs), xs / scale], axis=1) / ys[:, None]
    offset, slope = np.linalg.lstsq(rows, np.ones_like(ys), rcond=None)[0]
    if offset < 0 or slope < 0:
        column = 1 if offset < 0 else 0
        only = rows[:, column]
        value = float(only.sum() / (only**2).sum())
        offset, slope = (0.0, value) if column == 1 else (value, 0.0)
    residuals = rows @ np.array([offset, slope]) - 1
    return Line(float(offset), float(slope / scale), float(np.sqrt((residuals**2).mean())))
