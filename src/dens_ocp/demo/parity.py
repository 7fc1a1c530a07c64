"""Parity plots: predicted against true energies and forces, a column per split."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dens_ocp.demo.curves import COLOURS, plt, save
from dens_ocp.demo.table import Labels, errors


def draw_parity(path: Path, splits: dict[str, tuple[Labels, Labels]]) -> Path:
    """Write a PNG with energies above, force components of free atoms below.

    Args:
        path: PNG to write.
        splits: predicted and true labels by split.
    """
    figure, axes = plt.subplots(
        2, len(splits), figsize=(3.2 * len(splits) + 0.6, 6.6), layout="constrained", squeeze=False
    )
    energy_range = _range([labels.energy for pair in splits.values() for labels in pair])
    for column, (name, (predicted, true)) in enumerate(splits.items()):
        error = errors(predicted, true)
        above, below = axes[:, column]
        _scatter(above, true.energy, predicted.energy, energy_range, COLOURS[0], size=12)
        above.set_title(f"{name}\nenergy MAE {error.energy_mae:.0f} meV", fontsize=10)
        above.set_xlabel("EMT adsorption energy (eV)")

        components, guessed = true.all_forces.ravel(), predicted.all_forces.ravel()
        force_range = _range([components])
        _scatter(below, components, guessed, force_range, COLOURS[1], size=5)
        below.set_title(f"force MAE {error.force_mae:.0f} meV/\u00c5", fontsize=10)
        below.set_xlabel("EMT force component (eV/\u00c5)")
        _symlog(below)
    axes[0, 0].set_ylabel("predicted (eV)")
    axes[1, 0].set_ylabel("predicted (eV/\u00c5)")
    return save(figure, path)


def _range(values: list[np.ndarray]) -> tuple[float, float]:
    everything = np.concatenate(values)
    margin = 0.05 * float(np.ptp(everything)) or 1.0
    return float(everything.min()) - margin, float(everything.max()) + margin


def _scatter(axis, true, predicted, limits, colour: str, size: float) -> None:
    axis.plot(limits, limits, color="0.6", linewidth=0.8, zorder=0)
    axis.scatter(true, predicted, s=size, color=colour, alpha=0.45, linewidths=0)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.2, linewidth=0.5)
    axis.spines[["top", "right"]].set_visible(False)


def _symlog(axis) -> None:
    """Most forces are near zero and a few are large: linear below 0.3 eV/A, logarithmic above."""
    limit = max(map(abs, axis.get_xlim()))
    ticks = [tick for tick in (0.3, 1, 3, 10) if tick <= limit]
    ticks = [-tick for tick in reversed(ticks)] + [0] + ticks
    for setter in (axis.set_xscale, axis.set_yscale):
        setter("symlog", linthresh=0.3, linscale=1.0)
    for which in (axis.xaxis, axis.yaxis):
        which.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        which.set_minor_locator(plt.NullLocator())
    axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
