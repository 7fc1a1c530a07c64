"""Means, spreads and paired differences, and the comparison as text, LaTeX, JSON and picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from matplotlib.figure import Figure
from tabulate import LATEX_ESCAPE_RULES, tabulate

from dens_ocp.results.report.figures.drawing import COLOURS, new_figure, plain
from dens_ocp.results.scores import score_tables
from dens_ocp.results.scores.score_tables import AVERAGE, column
from dens_ocp.tools.ablate.plan import Plan
from dens_ocp.tools.ablate.runs import Run

METRICS = ("force_mae_meV_per_A", "energy_mae_meV")
"""What is compared, by the name in ``scores.json``."""

OF_CRYSTALS = ("force_mae_meV_per_A", "energy_per_atom_mae_meV", "stress_mae_meV_per_A3")
"""In place of it where all runs have a stress."""


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
        at: place on the axis of the plan's curve, if it has one.
        seeds: how many runs are scored.
        minutes, processor_minutes: mean training time of a run, on the clock and of processors;
            None: not known.
        splits: by split and metric: summary, and difference to the baseline. :data:`AVERAGE` over
            the splits comes first, and alone if there is only one.
    """

    base: str
    variant: str
    title: str
    at: float | None
    seeds: int
    minutes: float | None
    processor_minutes: float | None
    splits: dict[str, dict[str, tuple[Summary | None, Difference | None]]]


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
    scored = {
        (run.base, run.variant, run.seed): scores for run in runs if (scores := run.read_scores())
    }
    notes = {(run.base, run.variant, run.seed): run.read_notes() for run in runs}
    splits = list(dict.fromkeys(split for scores in scored.values() for split in scores))
    splits = (
        [AVERAGE, *(split for split in splits if split != AVERAGE)] if splits[2:] else [AVERAGE]
    )
    of_crystals = scored and all(OF_CRYSTALS[-1] in each[AVERAGE] for each in scored.values())

    def values(base: str, variant: str, split: str, metric: str) -> dict[int, float]:
        keys = {seed: (base, variant, seed) for seed in plan.seeds}
        return {s: scored[key][split][metric] for s, key in keys.items() if key in scored}

    def minutes(base: str, variant: str, seeds: Iterable[int], kind: str) -> float | None:
        times = [notes[base, variant, seed][kind] / 60 for seed in seeds]
        return fmean(times) if times and all(times) else None

    rows = []
    for base, of_base in plan.bases.items():
        for name, variant in plan.variants.items():
            by_split: dict[str, dict[str, tuple[Summary | None, Difference | None]]] = {}
            for split in splits:
                by_split[split] = {}
                for metric in OF_CRYSTALS if of_crystals else METRICS:
                    own = values(base, name, split, metric)
                    other = {} if name == plan.baseline else values(
                        base, plan.baseline, split, metric
                    )  # fmt: skip
                    by_split[split][metric] = (summarise(own), paired(own, other))
            times = [minutes(base, name, own, kind) for kind in ("seconds", "processor_seconds")]
            title = variant.title or name
            rows.append(Row(base, name, title, of_base.at, len(own), *times, by_split))
    return rows


def _measured(value: float, error: float | None, decimals: int, sign: str = "") -> str:
    text = f"{value:{sign}.{decimals}f}"
    return text if error is None else f"{text} +- {error:.{decimals}f}"


def _cells(row: Row, split: str) -> Iterator[str]:
    """Mean, difference, gain of each metric."""
    for metric, (summary, difference) in row.splits[split].items():
        decimals = column(metric)[2]
        yield "-" if summary is None else _measured(summary.mean, summary.spread, decimals)
        if difference is None:
            yield from ("-", "-")
        else:
            yield _measured(difference.mean, difference.error, decimals, "+")
            yield f"{difference.gain_percent:+.1f}"


def headings(row: Row) -> list[tuple[str, str]]:
    """Heading and unit of each metric of a row."""
    return [column(metric)[:2] for metric in row.splits[AVERAGE]]


def text_table(plan: Plan, rows: Sequence[Row]) -> str:
    """A table for each base and split."""
    header = ["variant", "seeds"]
    for heading, unit in headings(rows[0]):
        header += [f"{heading} ({unit})", "difference", "gain (%)"]
    header += ["minutes", "CPU minutes"]
    parts = []
    for base in plan.bases:
        for split in rows[0].splits:
            lines = [
                [row.title, str(row.seeds), *_cells(row, split),
                 *(f"{each:.1f}" if each else "-" for each in (row.minutes, row.processor_minutes))]
                for row in rows
                if row.base == base
            ]  # fmt: skip
            name = ", ".join(filter(None, [base, _title(rows[0], split)]))
            parts.append((f"{name}\n" if name else "") + score_tables.text_table(header, lines))
    title = f"{plan.title}\n\n" if plan.title else ""
    baseline = plan.variants[plan.baseline].title or plan.baseline
    return (
        f"{title}" + "\n\n".join(parts) + "\n\nmean +- standard deviation over seeds; difference: "
        f"mean over seeds of (variant - {baseline}) +- its standard error; gain: how much lower "
        "the error is; minutes: training time of a run, by the clock and of its CPUs\n"
    )


def _title(row: Row, split: str) -> str:
    """Of a split, where there are several."""
    several = [each for each in row.splits if each != AVERAGE]
    return split if split != AVERAGE or not several else f"average of {', '.join(several)}"


def latex_table(plan: Plan, rows: Sequence[Row]) -> str:
    """booktabs; a line for each variant, bases and splits below each other."""

    def text(words: str) -> str:
        return "".join(LATEX_ESCAPE_RULES.get(character, character) for character in words)

    splits = list(rows[0].splits)
    named = any(plan.bases)
    header = [*(["System"] if named else []), *(["Data"] if splits[1:] else []), "Variant"]
    align = ["left"] * len(header)
    for heading, unit in headings(rows[0]):
        unit = score_tables.LATEX_UNITS.get(unit, unit)
        header += [f"{heading[0].upper()}{heading[1:]} ({unit})", r"$\Delta$", r"Gain (\%)"]
    lines = []
    for base in plan.bases:
        for split in splits:
            for row in (each for each in rows if each.base == base):
                cells = [
                    f"${cell}$".replace("+-", r"\pm") if cell != "-" else "--"
                    for cell in _cells(row, split)
                ]
                names = [*([text(base)] if named else []), *([text(split)] if splits[1:] else [])]
                lines.append([*names, text(row.title), *cells])
    align += ["right"] * (len(header) - len(align))
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
    """A row of axes for each base and split, a column for each metric; variants from top to bottom,
    a point for each seed, a bar at the mean."""
    places = [(base, split) for base in plan.bases for split in rows[0].splits]
    height = 0.6 + 0.34 * len(plan.variants)
    metrics = list(rows[0].splits[AVERAGE])
    size = (4.0 * len(metrics), height * len(places) + 0.4)
    figure, axes = new_figure(len(places), len(metrics), size)
    for line, (base, split) in zip(axes, places, strict=True):
        own = [row for row in rows if row.base == base]
        for axis, metric in zip(line, metrics, strict=True):
            for place, row in enumerate(own):
                summary = row.splits[split][metric][0]
                if summary is None:
                    continue
                colour = COLOURS[1] if row.variant == plan.baseline else COLOURS[0]
                axis.plot([summary.mean] * 2, [place - 0.3, place + 0.3], color=colour, lw=2)
                axis.scatter(
                    list(summary.values.values()), [place] * len(summary.values),
                    s=16, color=colour, alpha=0.7, linewidths=0, zorder=3,
                )  # fmt: skip
            baseline = next(row for row in own if row.variant == plan.baseline)
            if (of_baseline := baseline.splits[split][metric][0]) is not None:
                axis.axvline(of_baseline.mean, color=COLOURS[1], lw=0.8, ls=":")
            plain(axis)
            axis.set_ylim(len(own) - 0.5, -0.5)
            titles = [row.title for row in own] if axis is line[0] else [""] * len(own)
            axis.set_yticks(range(len(own)), titles)
            axis.set_xlabel(label(metric), fontsize=8)
        if name := ", ".join(filter(None, [base, _title(own[0], split)])):
            line[0].set_title(name, fontsize=9, loc="left")
    return figure


def label(metric: str) -> str:
    """Of an axis."""
    heading, unit, _ = column(metric)
    return f"{heading} ({unit.replace('/A^3', '/Å³').replace('/A', '/Å')})"
