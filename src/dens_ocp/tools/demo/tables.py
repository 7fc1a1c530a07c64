"""The demo's tables as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dens_ocp.results.scores.scores import IS2REScores, IS2RSScores, S2EFScores
from dens_ocp.results.scores.text_table import format_table


def s2ef_table(scores: Mapping[str, Mapping[str, S2EFScores]]) -> str:
    """Errors by split and predictor."""
    rows = [
        [
            split,
            name,
            f"{score.energy_mae_meV:.0f}",
            f"{score.force_mae_meV_per_A:.1f}",
            f"{score.force_cosine:.3f}",
            f"{score.efwt_percent:.1f}",
        ]
        for split, by_name in scores.items()
        for name, score in by_name.items()
    ]
    header = ["split", "predictor", "energy MAE", "force MAE", "force cos", "EFwT"]
    units = ["", "", "meV", "meV/A", "", "%"]
    return format_table(header, [units, *_without_repeats(rows)], left=2)


def relaxation_table(
    energies: Mapping[str, Mapping[str, IS2REScores]],
    distances: Mapping[str, Mapping[str, IS2RSScores]],
) -> str:
    """Errors of relaxed energies, and distances from the relaxed structures, by split and
    predictor; the same predictors in both."""
    rows = [
        [
            split,
            name,
            f"{score.energy_mae_meV:.0f}",
            f"{score.ewt_percent:.0f}",
            f"{distances[split][name].mean_distance_A:.3f}",
            f"{distances[split][name].average_dwt_percent:.0f}",
        ]
        for split, by_name in energies.items()
        for name, score in by_name.items()
    ]
    header = ["split", "relaxed by", "energy MAE", "EwT", "distance", "average DwT"]
    units = ["", "", "meV", "%", "A", "%"]
    return format_table(header, [units, *_without_repeats(rows)], left=2)


def _without_repeats(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The first column only where it changes."""
    return [
        ["", *row[1:]] if index and rows[index - 1][0] == row[0] else row
        for index, row in enumerate(rows)
    ]
