"""The demo's tables as text, and its picture of both runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from dens_ocp.results.report.figures.drawing import save
from dens_ocp.results.report.figures.learning_curves import learning_curves
from dens_ocp.results.report.scalars import read_series
from dens_ocp.results.scores.score_tables import text_table
from dens_ocp.results.scores.scores import IS2REScores, IS2RSScores, S2EFScores
from dens_ocp.tools.demo.runs import Trained

_S2EF = {
    ("energy MAE", "meV"): "{0.energy_mae_meV:.0f}",
    ("force MAE", "meV/A"): "{0.force_mae_meV_per_A:.1f}",
    ("force cos", ""): "{0.force_cosine:.3f}",
    ("EFwT", "%"): "{0.efwt_percent:.1f}",
}
_RELAXED = {
    ("energy MAE", "meV"): "{0.energy_mae_meV:.0f}",
    ("EwT", "%"): "{0.ewt_percent:.0f}",
    ("distance", "A"): "{1.mean_distance_A:.3f}",
    ("average DwT", "%"): "{1.average_dwt_percent:.0f}",
}
"""Format by heading and unit."""


def s2ef_table(scores: Mapping[str, Mapping[str, S2EFScores]]) -> str:
    """Errors by split and predictor."""
    return _table("predictor", _S2EF, scores)


def relaxation_table(
    energies: Mapping[str, Mapping[str, IS2REScores]],
    distances: Mapping[str, Mapping[str, IS2RSScores]],
) -> str:
    """Errors of relaxed energies, and distances from the relaxed structures, by split and
    predictor; the same predictors in both."""
    return _table("relaxed by", _RELAXED, energies, distances)


def _table(who: str, columns: dict[tuple[str, str], str], *scores: Mapping[str, Mapping]) -> str:
    """The split only where it changes."""
    rows = [("", "", *(unit for _, unit in columns))]
    for split, by_name in scores[0].items():
        for number, name in enumerate(by_name):
            found = [each[split][name] for each in scores]
            cells = (form.format(*found) for form in columns.values())
            rows.append(("" if number else split, name, *cells))
    return text_table(["split", who, *(heading for heading, _ in columns)], rows, left=2)


def curves_picture(folder: Path, trained: Sequence[Trained]) -> Path:
    """``training.png``: losses and errors of all runs."""
    runs = {run.name: read_series(run.folder) for run in trained}
    mean_absolute = trained[0].config["optim"]["dens"]["sigma"] * math.sqrt(2 / math.pi)
    return save(learning_curves(runs, noise_of_zero=mean_absolute), folder / "training.png")
