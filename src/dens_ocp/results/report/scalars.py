"""Logged numbers of a run as arrays, and what is done to them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from scipy.signal import savgol_filter

from dens_ocp.checkpoints import metrics_file

Series = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""Steps (n,) int, ascending, and values (n,) float by tag (``train/loss_noise``,
``val/forces_mae``). Those of training are means since the step before."""

_PLACE = {"split", "step", "epoch", "time"}


def read_series(folder: Path) -> Series:
    """What :mod:`metrics_file` of a run holds; empty where there is no such file.

    Args:
        folder: of the run's checkpoints.
    """
    found: dict[str, dict[int, float]] = {}
    for line in metrics_file.read(folder):
        for name in line.keys() - _PLACE:
            value = math.nan if line[name] is None else float(line[name])
            found.setdefault(f"{line['split']}/{name}", {})[line["step"]] = value
    return {
        tag: (np.array(sorted(values)), np.array([values[step] for step in sorted(values)]))
        for tag, values in found.items()
    }


def smooth(values: np.ndarray, reach: int = 3) -> np.ndarray:
    """Means over each value and ``reach`` neighbours on both sides.

    The first and last ``reach`` values lie on a straight line through those of the first and last
    window, so that a line stays one: means over what is left of a window there would bend a slope.
    Values that are not finite stay as they are, and others do not look across them. Nothing lies
    outside what its window spans.

    >>> smooth(np.arange(10.0)).round(6).tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    """
    smoothed = values.astype(float)
    finite = np.isfinite(smoothed)
    edges = np.flatnonzero(np.diff(np.r_[False, finite, False].astype(int)))
    for start, end in edges.reshape(-1, 2):
        part = smoothed[start:end].copy()
        window = min(2 * reach + 1, len(part) - 1 + len(part) % 2)
        if window < 3:
            continue
        line = savgol_filter(part, window, polyorder=1, mode="interp")
        # on a steep slope the line of an edge may leave the values, and fall below zero
        first = np.clip(np.arange(len(part)) - window // 2, 0, len(part) - window)
        spans = part[first[:, None] + np.arange(window)]
        smoothed[start:end] = np.clip(line, spans.min(1), spans.max(1))
    return smoothed


def tail(values: np.ndarray, share: float = 0.1) -> np.ndarray:
    """The last ``share`` of the values, at least one."""
    return values[-max(1, round(share * len(values))) :]
