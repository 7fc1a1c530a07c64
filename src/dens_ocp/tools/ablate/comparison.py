"""Means, spreads and paired differences, and the comparison as text, LaTeX and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev

from tabulate import LATEX_ESCAPE_RULES, tabulate

from dens_ocp.tools.ablate.plan import Plan
from dens_ocp.tools.ablate.runs import Run

METRICS = {
    "force_mae_meV_per_A": ("force MAE", "meV/A", 2),
    "energy_mae_meV": ("energy MAE", "meV", 1),
}
"""Heading, unit and decimals by the name in ``scores.json``."""


@dataclass(frozen=True)
class Summary:
    """Of one metric over seeds.

    Attributes:
        values: by seed.
        mean: of them.
        spread: standard deviation (n - 1); None for a single seed.
    """

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
    seeds = [seed for seed in variant if seed in baseline]
    if not seeds:
        return None
    differences = [variant[seed] - baseline[seed] for seed in seeds]
    reference = fmean(baseline[seed] for seed in seeds)
    return Difference(
        len(seeds),
        fmean(differences),
        stdev(differences) / math.sqrt(len(seeds)) if len(seeds) > 1 else None,
        -100 * fmean(differences) / reference if reference else math.nan,
    )


def collect(plan: Plan, runs: Sequence[Run]) -> list[Row]:
    """Rows of what is scored, in the plan's order."""
    scored = {(run.base, run.variant, run.seed): run.read_scores() for run in runs}
    seconds = {(run.base, run.variant, run.seed): run.read_notes()["seconds"] for run in runs}

    def values(base: str, variant: str, metric: str) -> dict[int, float]:
        found = {seed: scored[base, variant, seed] for seed in plan.seeds}
        return {seed: scores[metric] for seed, scores in found.items() if scores is not None}

    rows = []
    for base in plan.bases:
        for name, variant in plan.variants.items():
            metrics: dict[str, tuple[Summary | None, Difference | None]] = {}
            for metric in METRICS:
                own = values(base, name, metric)
                reference = {} if name == plan.baseline else values(base, plan.baseline, metric)
                metrics[metric] = (summarise(own), paired(own, reference))
            times = [seconds[base, name, seed] for seed in own if seconds[base, name, seed]]
            minutes = fmean(times) / 60 if times else None
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


def _table(header: list[str], lines: list[list[str]], style: str, left: int) -> str:
    align = ["left"] * left + ["right"] * (len(header) - left)
    return tabulate(lines, header, tablefmt=style, disable_numparse=True, colalign=align)


def text_table(plan: Plan, rows: Sequence[Row]) -> str:
    """A table for each base."""
    header = ["variant", "seeds"]
    for heading, unit, _ in METRICS.values():
        header += [f"{heading} ({unit})", "difference", "gain (%)"]
    header.append("minutes")
    parts = []
    for base in plan.bases:
        lines = [
            [row.title, str(row.seeds), *_cells(row), "-" if row.minutes is None else
             f"{row.minutes:.1f}"]
            for row in rows
            if row.base == base
        ]  # fmt: skip
        parts.append((f"{base}\n" if base else "") + _table(header, lines, "simple", 1))
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
    table = _table(header, lines, "latex_raw", 2 if named else 1)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        table = table.replace(r"\hline", rule, 1)
    comment = f"% {plan.title or 'ablation'}: mean and standard deviation over seeds; differences "
    return f"{comment}paired by seed, with standard error\n{table}\n"


def json_table(plan: Plan, rows: Sequence[Row]) -> str:
    """All numbers, unrounded."""
    content = {"title": plan.title, "baseline": plan.baseline, "rows": [*map(asdict, rows)]}
    return json.dumps(content, indent=2) + "\n"
