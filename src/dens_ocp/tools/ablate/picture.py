"""The comparison as a picture: a point for each seed, a bar at the mean."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from dens_ocp.results.report.figures.drawing import COLOURS, new_figure, plain
from dens_ocp.tools.ablate.comparison import METRICS, Row
from dens_ocp.tools.ablate.plan import Plan


def draw(plan: Plan, rows: Sequence[Row]) -> Figure:
    """A row of axes for each base, a column for each metric; variants from top to bottom."""
    bases = list(plan.bases)
    height = 0.6 + 0.34 * len(plan.variants)
    figure, axes = new_figure(len(bases), len(METRICS), (8.0, height * len(bases) + 0.4))
    for line, base in zip(axes, bases, strict=True):
        own = [row for row in rows if row.base == base]
        for axis, (metric, (heading, unit, _)) in zip(line, METRICS.items(), strict=True):
            for place, row in enumerate(own):
                summary = row.metrics[metric][0]
                if summary is None:
                    continue
                colour = COLOURS[1] if row.variant == plan.baseline else COLOURS[0]
                axis.plot([summary.mean] * 2, [place - 0.3, place + 0.3], color=colour, lw=2)
                axis.scatter(
                    list(summary.values.values()), [place] * len(summary.values),
                    s=16, color=colour, alpha=0.7, linewidths=0, zorder=3,
                )  # fmt: skip
            baseline = next((r.metrics[metric][0] for r in own if r.variant == plan.baseline), None)
            if baseline is not None:
                axis.axvline(baseline.mean, color=COLOURS[1], lw=0.8, ls=":")
            plain(axis)
            axis.set_ylim(len(own) - 0.5, -0.5)
            titles = [row.title for row in own] if axis is line[0] else [""] * len(own)
            axis.set_yticks(range(len(own)), titles)
            axis.set_xlabel(f"{heading} ({unit.replace('/A', '/Å')})", fontsize=8)
        if base:
            line[0].set_title(base, fontsize=9, loc="left")
    return figure
