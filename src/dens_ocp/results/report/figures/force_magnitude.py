"""Force errors against the magnitude of the true force."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dens_ocp.results.report.breakdown import Breakdown
from dens_ocp.results.report.figures.drawing import COLOURS, MARKERS, new_figure, plain

_FEW = 5  # atoms in a bin below which it is not drawn


def binned(breakdown: Breakdown, at_least: int = 1) -> np.ndarray:
    """(bins, 3): mean length of the true force, mean length of the error (eV/Angstrom), atoms; of
    the bins with ``at_least`` so many atoms."""
    number, true, wrong = breakdown.magnitude.T
    full = number >= max(at_least, 1)
    return np.stack([true[full] / number[full], wrong[full] / number[full], number[full]], 1)


def force_magnitude(splits: Mapping[str, Breakdown]) -> Figure:
    """Mean length of the force error by the length of the true force, and how many atoms there are.

    Args:
        splits: by name.
    """
    figure, axes = new_figure(1, 2, (11, 4.2))
    error, count = axes[0]
    ends = []
    for index, (split, breakdown) in enumerate(splits.items()):
        line = binned(breakdown, _FEW)
        line = line[line[:, 0] > 0]
        if not len(line):
            continue
        style = {
            "color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)],
            "markersize": 4, "linewidth": 1.2, "label": split,
        }  # fmt: skip
        error.plot(1000 * line[:, 0], 1000 * line[:, 1], **style)
        count.plot(1000 * line[:, 0], 100 * line[:, 2] / line[:, 2].sum(), **style)
        ends += [1000 * line[0, 0], 1000 * line[-1, 0]]
    if ends:
        ends = [min(ends), max(ends)]
        error.plot(ends, ends, color="0.35", linestyle=":", label="zero predicted")
        for axis in (error, count):
            axis.set_xscale("log")
        error.set_yscale("log")
    error.set(xlabel="length of the true force (meV/\u00c5)", ylabel="mean error (meV/\u00c5)")
    count.set(xlabel="length of the true force (meV/\u00c5)", ylabel="share of free atoms (%)")
    for axis in (error, count):
        plain(axis)
    error.legend(fontsize=8, frameon=False)
    return figure
