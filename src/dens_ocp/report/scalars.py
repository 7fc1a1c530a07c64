"""Logged numbers of a run as arrays, whichever logger wrote them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Steps (n,) int and values (n,) float by tag (``train/loss_noise``, ``val/forces_mae``)."""


def collected(rows: Iterable[tuple[str, int, float]]) -> Series:
    """Series from (tag, step, value) in the order they were written.

    Steps ascend; of a step that was written twice (a run that was stopped and went on) the last
    value is kept.
    """
    found: dict[str, dict[int, float]] = {}
    for tag, step, value in rows:
        found.setdefault(tag, {})[int(step)] = float(value)
    return {
        tag: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
        for tag, values in found.items()
    }


def window_ends(steps: np.ndarray, values: np.ndarray, every: int) -> tuple[np.ndarray, np.ndarray]:
    """The last value of each window of ``every`` steps.

    fairchem logs in training the mean since the last multiple of ``--print-every``: only the last
    value of a window is the mean over all of it.

    >>> window_ends(np.array([1, 2, 3, 4]), np.array([4.0, 3.0, 2.0, 1.0]), 2)
    (array([2, 4]), array([3., 1.]))
    """
    window = (steps - 1) // max(every, 1)
    last = np.r_[window[1:] != window[:-1], True]
    return steps[last], values[last]


def smooth(values: np.ndarray, reach: int = 3) -> np.ndarray:
    """Means over each value and up to ``reach`` neighbours on both sides."""
    positions = range(len(values))
    return np.array([values[max(0, at - reach) : at + reach + 1].mean() for at in positions])


def tail(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The last ``share`` of the values, at least one."""
    return values[-max(1, round(share * len(values))) :]
