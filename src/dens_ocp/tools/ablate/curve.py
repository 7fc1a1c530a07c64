"""Errors against the length or the cost of training, and how much longer the baseline needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dens_ocp.results.report.figures.drawing import COLOURS, MARKERS, new_figure, plain
from dens_ocp.results.scores import score_tables
from dens_ocp.results.scores.score_tables import AVERAGE, column
from dens_ocp.tools.ablate.comparison import Row, label
from dens_ocp.tools.ablate.plan import Plan


@dataclass(frozen=True)
class Reached:
    """How much the baseline needs for the error of a variant, over what the variant needs.

    Attributes:
        times: the ratio. bound: ``=``; ``>``: the baseline's longest training does not get there;
            ``<``: its shortest one is better already.
    """

    times: float
    bound: str

    def __str__(self) -> str:
        return f"{'' if self.bound == '=' else self.bound + ' '}{self.times:.1f}"


def reached(needs: float, error: float, baseline: Sequence[tuple[float, float]]) -> Reached | None:
    """How much more the baseline needs to be as good.

    Between two trainings its error is taken to fall evenly with the logarithm of what they need.

    Args:
        needs, error: of the variant: epochs or minutes, and what it gets with them.
        baseline: the same of each of the baseline's trainings.

    >>> print(reached(40, 30.0, [(40, 34.0), (80, 32.0), (160, 29.0)]))
    3.2
    >>> print(reached(40, 28.0, [(40, 34.0), (80, 32.0), (160, 29.0)]))
    > 4.0
    """
    points = sorted(baseline)
    if not points:
        return None
    if points[0][1] <= error:
        return Reached(points[0][0] / needs, "<")
    for (less, worse), (more, better) in pairwise(points):
        if better <= error < worse:
            share = (worse - error) / (worse - better)
            return Reached(less * (more / less) ** share / needs, "=")
    return Reached(points[-1][0] / needs, ">")


def cost(row: Row) -> float | None:
    """Minutes of processors; of a training that was not on this machine's, on the clock."""
    return row.processor_minutes or row.minutes


def curve_table(plan: Plan, rows: Sequence[Row]) -> str:
    """A table for each split: errors by place on the axis, and how much longer the baseline has to
    be trained to be as good, in units of the axis and of the cost."""
    metrics = list(rows[0].splits[AVERAGE])
    header = ["variant", plan.curve, "minutes"]
    for metric in metrics:
        heading, unit, _ = column(metric)
        header += [f"{heading} ({unit})", f"x {plan.curve}", "x minutes"]
    baseline = [row for row in rows if row.variant == plan.baseline]
    parts = []
    for split in rows[0].splits:
        lines = []
        for row in _by_variant(plan, rows):
            minutes = cost(row)
            line = [row.title, f"{row.at:g}", "-" if minutes is None else f"{minutes:.1f}"]
            for metric in metrics:
                summary = row.splits[split][metric][0]
                line.append("-" if summary is None else f"{summary.mean:.{column(metric)[2]}f}")
                for needs in (lambda each: each.at, cost):
                    others = [
                        (needs(each), of_it.mean)
                        for each in baseline
                        if (of_it := each.splits[split][metric][0]) and needs(each)
                    ]
                    known = summary and needs(row) and row.variant != plan.baseline
                    found = reached(needs(row), summary.mean, others) if known else None
                    line.append("-" if found is None else str(found))
            lines.append(line)
        name = f"{split}\n" if split != AVERAGE else ""
        parts.append(name + score_tables.text_table(header, lines))
    title = plan.variants[plan.baseline].title or plan.baseline
    return (
        "\n\n".join(parts)
        + f"\n\nx: how many times as much {title} needs to reach the same error, interpolated "
        "between its trainings\n"
    )


def _by_variant(plan: Plan, rows: Sequence[Row]) -> list[Row]:
    order = list(plan.variants)
    return sorted(rows, key=lambda row: (order.index(row.variant), row.at))


def draw_curve(plan: Plan, rows: Sequence[Row]) -> Figure:
    """Rows of axes: splits; columns: each metric against the plan's axis, then against minutes of
    training; a line through the means of each variant, a point for each seed."""
    splits, metrics = list(rows[0].splits), list(rows[0].splits[AVERAGE])
    columns = [(metric, axis) for axis in (plan.curve, "minutes of training") for metric in metrics]
    size = (3.2 * len(columns), 2.7 * len(splits) + 0.3)
    figure, axes = new_figure(len(splits), len(columns), size)
    for line, split in zip(axes, splits, strict=True):
        for axis, (metric, against) in zip(line, columns, strict=True):
            _draw(axis, plan, rows, split, metric, of_cost=against != plan.curve)
            axis.set_xlabel(against, fontsize=8)
            axis.set_ylabel(label(metric), fontsize=8)
        if splits[1:]:
            line[0].set_title(split, fontsize=9, loc="left")
    axes[0, 0].legend(fontsize=7, frameon=False)
    return figure


def _draw(
    axis: Axes, plan: Plan, rows: Sequence[Row], split: str, metric: str, of_cost: bool
) -> None:
    for number, name in enumerate(plan.variants):
        points = [
            (cost(row) if of_cost else row.at, row.splits[split][metric][0])
            for row in _by_variant(plan, rows)
            if row.variant == name
        ]
        there = [(x, summary) for x, summary in points if x is not None and summary is not None]
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        title = plan.variants[name].title or name
        means = [summary.mean for _, summary in there]
        axis.plot([x for x, _ in there], means, color=colour, lw=1.4, label=title)
        for x, summary in there:
            values = list(summary.values.values())
            axis.scatter([x] * len(values), values, s=14, color=colour, marker=marker,
                         alpha=0.7, linewidths=0, zorder=3)  # fmt: skip
    plain(axis)
    axis.set_xscale("log")
    ticks = sorted({row.at for row in rows}) if not of_cost else None
    if ticks:
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
