"""A picture of the times."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.gpu.findings import Finding

_COLOURS = {
    "flat": "#b0413e", "hydra": "#d08c8a", "fairchem-dens": "#c9a227", "ours": "#8fb0d3",
    "fast": "#3b6ea5", "graphs": "#1d3a5f",
}  # fmt: skip


def speed(findings: Sequence[Finding], path: Path) -> None:
    """Milliseconds of a step by variant, a group of bars for each case and precision."""
    rows = [f for f in findings if f["kind"] == "speed" and f["task"] == "step" and "ms" in f]
    groups: dict[tuple[str, str], list[Finding]] = {}
    for row in rows:
        name = f"{row['case']}, {row['structures']} structures, {row['precision']}"
        groups.setdefault((row["part"], name), []).append(row)
    height = 0.8 + sum(0.25 + 0.2 * len(each) for each in groups.values())
    figure = Figure(figsize=(8, max(2.0, height)))
    axes = figure.subplots()
    place, ticks = 0.0, []
    for (_, name), group in groups.items():
        first = place
        for row in group:
            axes.barh(place, row["ms"]["median"], color=_COLOURS[row["variant"]], height=0.9)
            ratio = f"  {row['ratio']['median']:.2f}" if "ratio" in row else ""
            text = f" {row['label']}{ratio}"
            axes.annotate(text, (row["ms"]["median"], place), va="center", fontsize=6)
            place += 1
        ticks.append(((first + place - 1) / 2, name))
        place += 1.2
    axes.set_yticks([at for at, _ in ticks], [name for _, name in ticks], fontsize=7)
    axes.invert_yaxis()
    if any(f.get("quick") for f in findings):
        axes.set_title("tiny models: not figures of anything", fontsize=9, loc="left")
    axes.margins(x=0.25)
    axes.set_xlabel("ms of a training step; beside it the ratio to stock without DeNS")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)
