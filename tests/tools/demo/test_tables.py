"""The demo's labels, trivial predictors and printed tables, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from dens_ocp.data.structures import Structure
from dens_ocp.data.structures import structure as read_structure
from dens_ocp.results.report.breakdown import Breakdown
from dens_ocp.results.scores.prediction_files import Predictions
from dens_ocp.results.scores.scores import IS2REScores, IS2RSScores, s2ef_scores
from dens_ocp.tools.demo.given import MEAN, ZERO_FORCE, baselines, labels
from dens_ocp.tools.demo.steps import relaxation_table, s2ef_table


def structure(name: str, energy: float, forces: list, fixed: list) -> Structure:
    count = len(forces)
    return Structure(
        id=name, sid=name, atomic_numbers=np.ones(count, int), tags=np.zeros(count, int),
        fixed=np.array(fixed, bool), pos=np.zeros((count, 3)), cell=np.eye(3), energy=energy,
        forces=np.array(forces, float),
    )  # fmt: skip


STRUCTURES = [
    structure("a", 1.0, [[1, 0, 0], [9, 9, 9]], [0, 1]),
    structure("b", 2.0, [[0, 2, 0], [0, 0, 0]], [0, 0]),
]


def trained_on(energies, *forces):
    """Structures with these energies and forces on free atoms, and one fixed atom each."""
    return [
        structure(str(number), energy, [*force, [9, 9, 9]], [0] * len(force) + [1])
        for number, (energy, force) in enumerate(zip(energies, forces, strict=True))
    ]


def test_trivial_predictors():
    train = trained_on([0.0, 4.0], [[1, 2, 3]], [[3, 2, 1]])
    predicted = baselines(train, STRUCTURES)
    assert predicted[ZERO_FORCE].energy.tolist() == [1.5, 1.5], "the mean of these structures"
    assert predicted[MEAN].energy.tolist() == [2.0, 2.0], "the mean of the training set"
    zero = s2ef_scores(predicted[ZERO_FORCE], STRUCTURES)
    assert zero.energy_mae_meV == pytest.approx(1000 * (0.5 + 0.5) / 2)
    assert zero.force_mae_meV_per_A == pytest.approx(1000 * 3 / 9)
    mean = s2ef_scores(predicted[MEAN], STRUCTURES)
    assert mean.force_mae_meV_per_A == pytest.approx(1000 * (1 + 2 + 2 + 2 + 0 + 2 + 6) / 9)


def test_part_of_predictions():
    whole = Predictions(["a", "b"], np.array([1.0, 2.0]), [np.zeros((1, 3)), np.ones((2, 3))])
    part = whole.only({"b"})
    assert part.ids == ["b"] and part.energy.tolist() == [2.0] and len(part.forces) == 1
    assert s2ef_scores(part, STRUCTURES[1:]).force_mae_meV_per_A == pytest.approx(1000.0)


def test_targets_are_free_atoms_only():
    record = Data(
        y=0.5, sid=torch.tensor([7]), fid=3, fixed=torch.tensor([1, 0, 1]),
        force=torch.arange(9.0).view(3, 3), atomic_numbers=torch.ones(3, dtype=torch.long),
        pos=torch.zeros(3, 3),
    )  # fmt: skip
    read = read_structure(record)
    energies, forces = labels([read])
    assert read.id == "7_3"
    assert energies.tolist() == [0.5]
    assert forces.tolist() == [[3.0, 4.0, 5.0]]


def cells(text: str) -> list[list[str]]:
    rows = [line.split("  ") for line in text.splitlines()]
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


def test_the_printed_table():
    exact = Predictions(
        ["a", "b"], np.array([1.0, 2.0]), [each.forces[each.free] for each in STRUCTURES]
    )
    predicted = {"DeNS": exact, **baselines(trained_on([2.0], [[0, 0, 0]]), STRUCTURES)}
    scores = {name: s2ef_scores(each, STRUCTURES) for name, each in predicted.items()}
    rows = cells(s2ef_table({"id": scores}))
    assert rows[3] == ["id", "DeNS", "0", "0.0", "0.667", "100.0"]
    assert rows[4] == [ZERO_FORCE, "500", "333.3", "0.000", "0.0"]
    assert rows[5][0] == MEAN


def test_the_printed_relaxation_table():
    energies = {"id": {"DeNS": IS2REScores(3, 12.4, 25.0)}}
    distances = {"id": {"DeNS": IS2RSScores(3, 40.4, {}, 0.25)}}
    text = relaxation_table(energies, distances)
    assert text.splitlines()[-1].split() == ["id", "DeNS", "12", "25", "0.250", "40"]


def test_the_report_has_the_same_baseline():
    """One split, one number: the table of the demo beside the report's key numbers."""
    breakdown = Breakdown()
    for each in STRUCTURES:
        breakdown.add(each, 0.0, np.zeros((each.free.sum(), 3)))
    trivial = s2ef_scores(
        baselines(trained_on([7.0], [[0, 0, 0]]), STRUCTURES)[ZERO_FORCE], STRUCTURES
    )
    assert trivial.energy_mae_meV == pytest.approx(breakdown.scores().mean_energy_mae)
    assert trivial.force_mae_meV_per_A == pytest.approx(breakdown.scores().zero_force_mae)
