"""The demo's tables as text, and its picture of both runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from tabulate import tabulate

from dens_ocp.results.report.figures.drawing import save
from dens_ocp.results.report.figures.learning_curves import learning_curves
from dens_ocp.results.report.scalars import read_series
from dens_ocp.results.scores.scores import IS2REScores, IS2RSScores, S2EFScores
from dens_ocp.tools.demo.runs import Trained


def s2ef_table(scores: Mapping[str, Mapping[str, S2EFScores]]) -> str:
    """Errors by split and predictor."""
    columns = {"energy MAE": "meV", "force MAE": "meV/A", "force cos": "", "EFwT": "%"}
    cells = {
        split: {
            name: (
                f"{score.energy_mae_meV:.0f}",
                f"{score.force_mae_meV_per_A:.1f}",
                f"{score.force_cosine:.3f}",
                f"{score.efwt_percent:.1f}",
            )
            for name, score in by_name.items()
        }
        for split, by_name in scores.items()
    }
    return _table("predictor", columns, cells)


def relaxation_table(
    energies: Mapping[str, Mapping[str, IS2REScores]],
    distances: Mapping[str, Mapping[str, IS2RSScores]],
) -> str:
    """Errors of relaxed energies, and distances from the relaxed structures, by split and
    predictor; the same predictors in both."""
    columns = {"energy MAE": "meV", "EwT": "%", "distance": "A", "average DwT": "%"}
    cells = {
        split: {
            name: (
                f"{score.energy_mae_meV:.0f}",
                f"{score.ewt_percent:.0f}",
                f"{distances[split][name].mean_distance_A:.3f}",
                f"{distances[split][name].average_dwt_percent:.0f}",
            )
            for name, score in by_name.items()
        }
        for split, by_name in energies.items()
    }
    return _table("relaxed by", columns, cells)


def _table(
    who: str, columns: dict[str, str], cells: Mapping[str, Mapping[str, Sequence[str]]]
) -> str:
    """The split only where it changes; ``columns``: unit by name."""
    rows = [("", "", *columns.values())]
    for split, by_name in cells.items():
        for number, (name, values) in enumerate(by_name.items()):
            rows.append(("" if number else split, name, *values))
    align = ["left", "left", *["right"] * len(columns)]
    return tabulate(rows, ["split", who, *columns], "simple", disable_numparse=True, colalign=align)


def curves_picture(folder: Path, trained: Sequence[Trained]) -> Path:
    """``training.png``: losses and errors of all runs."""
    runs = {run.name: read_series(run.folder) for run in trained}
    sigma = trained[0].config["optim"]["dens"]["sigma"]
    mean_absolute = sigma * math.sqrt(2 / math.pi)
    figure = learning_curves(runs, noise_of_zero=mean_absolute)
    return save(figure, folder / "training.png")
