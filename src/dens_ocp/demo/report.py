"""The demo's tables as text."""

from __future__ import annotations

from collections.abc import Sequence

from dens_ocp.demo.table import Errors, Labels, RelaxationErrors, constant, errors, format_table


def s2ef_table(
    trained: dict[str, dict[str, Labels]], true: dict[str, Labels], train: Labels
) -> str:
    """Errors per split of each trained model, and of the two trivial predictors.

    Args:
        trained: predictions by run and split.
        true: labels by split.
        train: the training set's labels, for the trivial predictors.
    """
    rows: list[Sequence[str]] = []
    for split, labels in true.items():
        for name, predicted in trained.items():
            rows.append([split, name, *_cells(errors(predicted[split], labels))])
        for name, zero_force in (("mean energy, zero force", True), ("mean of train", False)):
            trivial = constant(train, labels, zero_force)
            rows.append([split, name, *_cells(errors(trivial, labels))])
    header = ["split", "predictor", "energy MAE", "EwT %", "force MAE", "force cos"]
    units = ["", "", "meV", "< 20 meV", "meV/A", ""]
    text = format_table(header, [units, *_without_repeats(rows)], left=2)
    return text


def _cells(error: Errors) -> list[str]:
    return [
        f"{error.energy_mae:.0f}",
        f"{error.energy_within:.1f}",
        f"{error.force_mae:.1f}",
        f"{error.force_cosine:.3f}",
    ]


def relaxation_table(
    trained: dict[str, dict[str, RelaxationErrors]], mean_energy: dict[str, float]
) -> str:
    """Errors of relaxations per split.

    Args:
        trained: by run and split.
        mean_energy: by split: MAE of the training set's mean energy, meV.
    """
    rows: list[Sequence[str]] = []
    for name, splits in trained.items():
        for split, error in splits.items():
            rows.append(
                [
                    split,
                    name,
                    f"{error.energy_mae:.0f}",
                    f"{mean_energy[split]:.0f}",
                    f"{error.distance:.3f}",
                    f"{error.distance_before:.3f}",
                ]
            )
    rows.sort(key=lambda row: list(mean_energy).index(row[0]))
    header = ["split", "relaxed by", "energy MAE", "mean energy", "distance", "before"]
    units = ["", "", "meV", "meV", "A", "A"]
    return format_table(header, [units, *_without_repeats(rows)], left=2)


def _without_repeats(rows: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """The first column only where it changes."""
    return [
        ["", *row[1:]] if index and rows[index - 1][0] == row[0] else row
        for index, row in enumerate(rows)
    ]
