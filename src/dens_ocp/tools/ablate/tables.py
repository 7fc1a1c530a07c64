"""The comparison as text, LaTeX and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from dens_ocp.results.scores.text_table import format_table, latex_tabular, latex_text
from dens_ocp.tools.ablate.comparison import Difference, Summary, paired, summarise
from dens_ocp.tools.ablate.plan import Plan
from dens_ocp.tools.ablate.runs import Run

METRICS = {
    "force_mae_meV_per_A": ("force MAE", "meV/A", 2),
    "energy_mae_meV": ("energy MAE", "meV", 1),
}
"""Heading, unit and decimals by the name in ``scores.json``."""


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


def collect(plan: Plan, runs: Sequence[Run]) -> list[Row]:
    """Rows of what is scored, in the plan's order."""
    values: dict[tuple[str, str, str], dict[int, float]] = {}
    seconds: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        scores = run.read_scores()
        if scores is None:
            continue
        for metric in METRICS:
            values.setdefault((run.base, run.variant, metric), {})[run.seed] = scores[metric]
        if run.read_notes()["seconds"]:
            seconds.setdefault((run.base, run.variant), []).append(run.read_notes()["seconds"])
    rows = []
    for base in plan.bases:
        for name, variant in plan.variants.items():
            metrics = {}
            for metric in METRICS:
                own = values.get((base, name, metric), {})
                reference = values.get((base, plan.baseline, metric), {})
                difference = None if name == plan.baseline else paired(own, reference)
                metrics[metric] = (summarise(own), difference)
            times = seconds.get((base, name))
            minutes = sum(times) / len(times) / 60 if times else None
            number = len(values.get((base, name, next(iter(METRICS))), {}))
            rows.append(Row(base, name, variant.title or name, number, minutes, metrics))
    return rows


def _measured(value: float | None, error: float | None, decimals: int, sign: str = "") -> str:
    if value is None:
        return "-"
    text = f"{value:{sign}.{decimals}f}"
    return text if error is None else f"{text} +- {error:.{decimals}f}"


def _cells(row: Row) -> Iterator[str]:
    for metric, (_, _, decimals) in METRICS.items():
        summary, difference = row.metrics[metric]
        yield _measured(summary and summary.mean, summary.spread if summary else None, decimals)
        yield _measured(
            difference and difference.mean, difference.error if difference else None, decimals, "+"
        )
        yield "-" if difference is None else f"{difference.gain_percent:+.1f}"


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
        parts.append((f"{base}\n" if base else "") + format_table(header, lines))
    title = f"{plan.title}\n\n" if plan.title else ""
    baseline = plan.variants[plan.baseline].title or plan.baseline
    return (
        f"{title}" + "\n\n".join(parts) + "\n\n"
        "mean +- standard deviation over seeds; difference: mean over seeds of (variant - "
        f"{baseline}) +- its standard error; gain: how much lower the error is\n"
    )


def latex_table(plan: Plan, rows: Sequence[Row]) -> str:
    """booktabs; a line for each variant, bases below each other."""
    named = any(plan.bases)
    header = [*(["System"] if named else []), "Variant"]
    for heading, unit, _ in METRICS.values():
        unit = unit.replace("/A", r"/\AA")
        header += [f"{heading[0].upper()}{heading[1:]} ({unit})", r"$\Delta$", r"Gain (\%)"]
    lines = []
    for row in rows:
        cells = [f"${cell}$".replace("+-", r"\pm") if cell != "-" else "--" for cell in _cells(row)]
        lines.append([*([latex_text(row.base)] if named else []), latex_text(row.title), *cells])
    left = 2 if named else 1
    comment = f"% {plan.title or 'ablation'}: mean and standard deviation over seeds; differences "
    return f"{comment}paired by seed, with standard error\n{latex_tabular([header], lines, left)}\n"


def json_table(plan: Plan, rows: Sequence[Row]) -> str:
    """All numbers, unrounded."""
    return json.dumps(
        {"title": plan.title, "baseline": plan.baseline, "rows": [asdict(row) for row in rows]},
        indent=2,
    ) + "\n"  # fmt: skip
