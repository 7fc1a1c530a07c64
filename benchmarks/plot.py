"""Pictures of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks.steps import PHASES

_COLOURS = ("#b0413e", "#3b6ea5", "#7a9e7e", "#c9a227", "#8fb0d3", "#5b5b5b")


def steps(results: list[dict[str, Any]], path: Path) -> None:
    """A panel per case: seconds of a step by phase, a bar per variant, ratio to stock on it."""
    figure = Figure(figsize=(8, 0.6 + sum(0.5 + 0.34 * len(r["variants"]) for r in results)))
    panels = figure.subplots(
        len(results), 1, squeeze=False,
        gridspec_kw={"height_ratios": [1 + len(r["variants"]) for r in results]},
    )[:, 0]  # fmt: skip
    for axes, result in zip(panels, results, strict=True):
        found = list(result["variants"].values())
        for row, variant in enumerate(found):
            start = 0.0
            for phase, colour in zip(PHASES, _COLOURS, strict=True):
                width = variant["step"]["phases"].get(phase, 0.0)
                axes.barh(row, width, left=start, color=colour, height=0.7,
                          label=phase if row == 0 else None)  # fmt: skip
                start += width
            if "ratio" in variant["step"]:
                ratio = variant["step"]["ratio"]
                axes.annotate(
                    f" {ratio['median']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})",
                    (start, row), va="center", fontsize=8,
                )  # fmt: skip
        axes.set_yticks(range(len(found)), [each["label"] for each in found], fontsize=8)
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.set_title(result["case"]["name"], fontsize=9, loc="left")
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[-1].set_xlabel(f"s of a training step ({results[-1]['clock']} time); ratio to stock")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", ncol=len(PHASES), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path)


def scaling(points: list[dict[str, Any]], path: Path) -> None:
    """A panel per axis: seconds of a step over its value, a line per variant."""
    axes_names = list(dict.fromkeys(point["axis"] for point in points))
    figure = Figure(figsize=(3 * len(axes_names), 3))
    panels = figure.subplots(1, len(axes_names), squeeze=False)[0]
    for axes, name in zip(panels, axes_names, strict=True):
        own = [point for point in points if point["axis"] == name]
        for variant in own[0]["variants"]:
            seconds = [p["variants"][variant]["step"]["seconds"][p["clock"]] for p in own]
            axes.plot([p["value"] for p in own], [s["median"] for s in seconds], marker="o",
                      markersize=3, label=own[0]["variants"][variant]["label"])  # fmt: skip
        axes.set_xlabel(name)
        axes.set_ylim(bottom=0)
    panels[0].set_ylabel("s of a training step")
    panels[0].legend(fontsize=7, frameon=False)
    figure.tight_layout()
    figure.savefig(path)
