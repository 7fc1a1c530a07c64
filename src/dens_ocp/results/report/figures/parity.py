"""Parity plots: predicted against true energies and forces, a column per split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from dens_ocp.results.report.figures.drawing import COLOURS, DENSITY_FROM, new_figure, plain, points

_LINEAR = 0.3  # eV/Angstrom; forces beyond it on a logarithmic scale
_TICKS = (0.3, 1, 3, 10, 30, 100)


@dataclass(frozen=True)
class Parity:
    """What is drawn of a split, and its errors.

    Attributes:
        energies: (n, 2) true and predicted, eV.
        forces: (m, 2) true and predicted components on free atoms, eV/Angstrom.
        energy_mae: meV, or None without energies. force_mae: meV/Angstrom, likewise.
    """

    energies: np.ndarray
    forces: np.ndarray
    energy_mae: float | None
    force_mae: float | None


def parity(splits: Mapping[str, Parity], label: str = "DFT") -> Figure:
    """Energies above, force components below, a column per split.

    Args:
        splits: by name.
        label: where the true values come from.
    """
    count = len(splits)
    figure, axes = new_figure(2, count, (3.2 * count + 0.6, 6.6))
    energy_range = _range([each.energies for each in splits.values()])
    for column, (name, each) in enumerate(splits.items()):
        above, below = axes[:, column]
        title = "no energy labels" if each.energy_mae is None else (
            f"energy MAE {each.energy_mae:.0f} meV"
        )  # fmt: skip
        _scatter(above, each.energies, energy_range, COLOURS[0], size=12)
        above.set_title(f"{name}\n{title}", fontsize=10)
        above.set_xlabel(f"{label} energy (eV)")

        title = "no force labels" if each.force_mae is None else (
            f"force MAE {each.force_mae:.0f} meV/\u00c5"
        )  # fmt: skip
        limit = max(map(abs, _range([each.forces[:, :1]])))
        _scatter(below, _bent(each.forces), (-_bent(limit), _bent(limit)), COLOURS[1], size=5)
        below.set_title(title, fontsize=10)
        below.set_xlabel(f"{label} force component (eV/\u00c5)")
        _force_ticks(below, limit)
    axes[0, 0].set_ylabel("predicted (eV)")
    axes[1, 0].set_ylabel("predicted (eV/\u00c5)")
    return figure


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    everything = np.concatenate([np.ravel(each) for each in values])
    if not len(everything):
        return -1.0, 1.0
    margin = 0.05 * float(np.ptp(everything)) or 1.0
    return float(everything.min()) - margin, float(everything.max()) + margin


def _scatter(
    axis: Axes, pairs: np.ndarray, limits: tuple[float, float], colour: str, size: float
) -> None:
    axis.plot(limits, limits, color="0.5", linewidth=0.8, zorder=0)
    inside = np.clip(pairs, *limits)  # far off predictions lie on the rim, and do not set the range
    points(axis, inside[:, 0], inside[:, 1], colour, size, extent=(*limits, *limits))
    if len(pairs) > DENSITY_FROM:
        axis.plot(limits, limits, color=COLOURS[1], linewidth=0.8)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    plain(axis)


def _bent(force: np.ndarray | float) -> np.ndarray | float:
    """Most forces are near zero and a few are large: linear up to 0.3 eV/A, then logarithmic."""
    scaled = np.abs(force) / _LINEAR
    return np.sign(force) * np.where(scaled <= 1, scaled, 1 + np.log(np.maximum(scaled, 1)))


def _force_ticks(axis: Axes, limit: float) -> None:
    ticks = [tick for tick in _TICKS if tick <= limit]
    ticks = [-tick for tick in reversed(ticks)] + [0] + ticks
    for which in (axis.xaxis, axis.yaxis):
        which.set_ticks([float(_bent(tick)) for tick in ticks], [f"{tick:g}" for tick in ticks])
        which.set_minor_locator(NullLocator())
