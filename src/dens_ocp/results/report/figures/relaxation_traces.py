"""Energies and forces along relaxations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from dens_ocp.results.report.figures.drawing import COLOURS, new_figure, plain
from dens_ocp.results.report.relaxation_files import Relaxations

DASHES = ("-", "--", ":")


def relaxation_traces(splits: Mapping[str, Relaxations], fmax: float | None) -> Figure:
    """Predicted energy above, largest force below, against the step; a column per split.

    Energies are drawn from the labelled energy of the relaxed structure, which is the line at
    zero; where there is none, from the last frame's.

    Args:
        splits: by name.
        fmax: where relaxations end, eV/Angstrom; drawn as a line.
    """
    figure, axes = new_figure(
        2, len(splits), (3.2 * len(splits) + 0.8, 5.6), sharex="col", sharey="row"
    )
    for column, (split, done) in enumerate(splits.items()):
        above, below = axes[:, column]
        for index, trace in enumerate(done.traces):
            style = {
                "color": COLOURS[index % len(COLOURS)],
                "linestyle": DASHES[index // len(COLOURS) % len(DASHES)],
                "linewidth": 1.2,
            }
            zero = trace.energies[-1] if trace.label is None else trace.label
            steps = np.arange(len(trace.energies))
            above.plot(steps, trace.energies - zero, label=trace.sid, **style)
            above.plot(steps[-1], trace.energies[-1] - zero, ".", color=style["color"])
            below.plot(steps, np.maximum(trace.max_forces, 1e-4), **style)
        above.axhline(0, color="0.25", linewidth=1, linestyle=(0, (1, 1)))
        above.set_title(f"{split}\n{_title(done)}", fontsize=10)
        below.set(xlabel="step", yscale="log")
        if fmax is not None:
            below.axhline(fmax, color="0.25", linewidth=1, linestyle=(0, (1, 1)))
        for axis in (above, below):
            plain(axis)
    labelled = {trace.label is not None for each in splits.values() for trace in each.traces}
    zero = {(True,): "label", (False,): "last frame"}.get(tuple(labelled), "label or last frame")
    axes[0, 0].set_ylabel(f"energy \u2212 {zero} (eV)")
    axes[1, 0].set_ylabel("largest force (eV/\u00c5)")
    return figure


def _title(done: Relaxations) -> str:
    if done.energy_mae is None:
        return f"{done.systems} systems"
    return f"energy MAE {done.energy_mae:.0f} meV"
