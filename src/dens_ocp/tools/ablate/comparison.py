"""Means, spreads and paired differences, and the comparison as text, LaTeX, JSON and picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from matplotlib.figure import Figure
from tabulate import LATEX_ESCAPE_RULES, tabulate

from dens_ocp.results.report.figures.drawing import COLOURS, new_figure, plain
from dens_ocp.results.scores import score_tables
from dens_ocp.tools.ablate.plan import Plan
from dens_ocp.tools.ablate.runs import Run

METRICS = {
    "force_mae_meV_per_A": ("force MAE", "meV/A", 2),
    "energy_mae_meV": ("energy MAE", "meV", 1),
}
"""Heading, unit and decimals by the name in ``scores.json``."""


@dataclass(frozen=True)
class Summary:
    """Of one metric over seeds: ``values`` by seed, their ``mean``, and ``spread``: standard
    deviation (n - 1); None for a single seed."""

    values: dict[int, float]
    mean: float
    spread: float | None


@dataclass(frozen=True)
class Difference:
    """Against the baseline, seed by seed.

    Attributes:
        seeds: how many both have.
        mean: of (variant - baseline), in the metric's unit; below 0: the variant is better.
        error: standard error of that mean, spread / sqrt(seeds); None for a single seed.
        gain_percent: 100 * (1 - variant / baseline), of the means over these seeds.
    """

    seeds: int
    mean: float
    error: float | None
    gain_percent: float


@dataclass(frozen=True)
class Row:
    """A variant on one base.

    Attributes:
        base, variant, title: which.
        seeds: how many runs are scored.
        minutes: mean training time of a run; None: not known.
        metrics: by name: summary, and difference to the baseline.
    """

    base: str
    variant: str
    title: str
    seeds: int
    minutes: float | None
    metrics: dict[str, tuple[Summary | None, Difference | None]]


def summarise(values: Mapping[int, float]) -> Summary | None:
    """None without values."""
    if not values:
        return None
    spread = stdev(values.values()) if len(values) > 1 else None
    return Summary(dict(values), fmean(values.values()), spread)


def paired(variant: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """None if no seed has both.

    >>> paired({0: 8.0, 1: 9.0}, {0: 10.0, 1: 10.0})
    Difference(seeds=2, mean=-1.5, error=0.5, gain_percent=15.0)
    """
    both = summarise({k: value - baseline[k] for k, value in variant.items() if k in baseline})
    if both is None:
        return None
    error = None if both.spread is None else both.spread / math.sqrt(len(both.values))
    reference = fmean(baseline[seed] for seed in both.values)
    gain = -100 * both.mean / reference if reference else math.nan
    return Difference(len(both.values), both.mean, error, gain)


def collect(plan: Plan, runs: Sequence[Run]) -> list[Row]:
    """Rows of what is scored, in the plan's order."""
    scored = {(run.base, run.variant, run.seed): run.read_scores() for run in runs}
    seconds = {(run.base, run.variant, run.seed): run.read_notes()["seconds"] for run in runs}

    def values(base: str, variant: str, metric: str) -> dict[int, float]:
        found = {seed: scored[base, variant, seed] for seed in plan.seeds}
        return {seed: scores[metric] for seed, scores in found.items() if scores}

    rows = []
    for base in plan.bases:
        for name, variant in plan.variants.items():
            metrics: dict[str, tuple[Summary | None, Difference | None]] = {}
            for metric in METRICS:
                own = values(base, name, metric)
                reference = {} if name == plan.baseline else values(base, plan.baseline, metric)
                metrics[metric] = (summarise(own), paired(own, reference))
            times = [seconds[base, name, seed] / 60 for seed in own if seconds[base, name, seed]]
            minutes = fmean(times) if times else None
            rows.append(Row(base, name, variant.title or name, len(own), minutes, metrics))
    return rows


def _measured(value: float, error: float | None, decimals: int, sign: str = "") -> str:
    text = f"{value:{sign}.{decimals}f}"
    return text if error is None else f"{text} +- {error:.{decimals}f}"


def _cells(row: Row) -> Iterator[str]:
    """Mean, difference, gain of each metric."""
    for metric, (_, _, decimals) in METRICS.items():
        summary, difference = row.metrics[metric]
        yield "-" if summary is None else _measured(summary.mean, summary.spread, decimals)
        if difference is None:
            yield from ("-", "-")
        else:
            yield _measured(difference.mean, difference.error, decimals, "+")
            yield f"{difference.gain_percent:+.1f}"


def text_table(plan: Plan, rows: Sequence[Row]) -> str:
    """A table for each base."""
    header = ["variant", "seeds"]
    for heading, unit, _ in METRICS.values():
        header += [f"{heading} ({unit})", "difference", "gain (%)"]
    header.append("minutes")
    parts = []
    for base in plan.bases:
        lines = [
            [row.title, str(row.seeds), *_cells(row), f"{row.minutes:.1f}" if row.minutes else "-"]
            for row in rows
            if row.base == base
        ]
        parts.append((f"{base}\n" if base else "") + score_tables.text_table(header, lines))
    title = f"{plan.title}\n\n" if plan.title else ""
    baseline = plan.variants[plan.baseline].title or plan.baseline
    return (
        f"{title}" + "\n\n".join(parts) + "\n\n"
        "mean +- standard deviation over seeds; difference: mean over seeds of (variant - "
        f"{baseline}) +- its standard error; gain: how much lower the error is\n"
    )


def latex_table(plan: Plan, rows: Sequence[Row]) -> str:
    """booktabs; a line for each variant, bases below each other."""

    def text(words: str) -> str:
        return "".join(LATEX_ESCAPE_RULES.get(character, character) for character in words)

    named = any(plan.bases)
    header = [*(["System"] if named else []), "Variant"]
    for heading, unit, _ in METRICS.values():
        unit = unit.replace("/A", r"/\AA")
        header += [f"{heading[0].upper()}{heading[1:]} ({unit})", r"$\Delta$", r"Gain (\%)"]
    lines = []
    for row in rows:
        cells = [f"${cell}$".replace("+-", r"\pm") if cell != "-" else "--" for cell in _cells(row)]
        lines.append([*([text(row.base)] if named else []), text(row.title), *cells])
    align = ["left"] * (1 + named) + ["right"] * (len(header) - 1 - named)
    table = tabulate(lines, header, "latex_raw", disable_numparse=True, colalign=align)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        table = table.replace(r"\hline", rule, 1)
    comment = f"% {plan.title or 'ablation'}: mean and standard deviation over seeds; differences "
    return f"{comment}paired by seed, with standard error\n{table}\n"


def json_table(plan: Plan, rows: Sequence[Row]) -> str:
    """All numbers, unrounded."""
    content = {"title": plan.title, "baseline": plan.baseline, "rows": [*map(asdict, rows)]}
    return json.dumps(content, indent=2) + "\n"


def draw(plan: Plan, rows: Sequence[Row]) -> Figure:
    """A row of axes for each base, a column for each metric; variants from top to bottom, a point
    for each seed, a bar at the mean."""
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
