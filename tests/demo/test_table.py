"""Errors of predictions, against numbers computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory
from torch_geometric.data import Data

from dens_ocp.demo.report import relaxation_table, s2ef_table
from dens_ocp.demo.table import (
    Labels,
    RelaxationErrors,
    constant,
    errors,
    format_table,
    predictions,
    relaxation_errors,
    relaxed_energies,
    relaxed_positions,
    targets,
)
from dens_ocp.errors import DensError


def labels(energy, *forces):
    return Labels(np.array(energy, dtype=float), [np.array(each, dtype=float) for each in forces])


TRUE = labels([1.0, 2.0], [[1, 0, 0]], [[0, 2, 0], [0, 0, 0]])


def test_errors_by_hand():
    predicted = labels([1.01, 1.5], [[1, 0, 0]], [[0, 0, 3], [0.3, 0, 0]])
    result = errors(predicted, TRUE)
    assert result.energy_mae == pytest.approx(1000 * (0.01 + 0.5) / 2)
    assert result.force_mae == pytest.approx(1000 * (2 + 3 + 0.3) / 9)
    assert result.force_cosine == pytest.approx((1 + 0 + 0) / 3)
    assert result.energy_within == 50.0


def test_trivial_predictors():
    train = labels([0.0, 4.0], [[1, 2, 3]], [[3, 2, 1]])
    zero = constant(train, TRUE, zero_force=True)
    assert zero.energy.tolist() == [2.0, 2.0]
    assert [each.shape for each in zero.forces] == [(1, 3), (2, 3)]
    assert errors(zero, TRUE).force_mae == pytest.approx(1000 * 3 / 9)
    mean = constant(train, TRUE, zero_force=False)
    assert (mean.all_forces == 2.0).all()
    assert errors(mean, TRUE).force_mae == pytest.approx(1000 * (1 + 2 + 2 + 2 + 0 + 2 + 6) / 9)


def test_targets_are_free_atoms_only():
    record = Data(
        y=0.5, sid=torch.tensor([7]), fid=3, fixed=torch.tensor([1, 0, 1]),
        force=torch.arange(9.0).view(3, 3),
    )  # fmt: skip
    ids, true = targets([record])
    assert ids == ["7_3"]
    assert true.energy.tolist() == [0.5]
    assert true.forces[0].tolist() == [[3.0, 4.0, 5.0]]


def write_predictions(path, ids):
    """As fairchem's trainer saves them: sorted by id, forces of free atoms, split indices."""
    np.savez_compressed(
        path, ids=np.array(ids), energy=np.array([[1.0], [2.0]], dtype=np.float16),
        forces=np.arange(9, dtype=np.float32).reshape(3, 3), chunk_idx=np.array([1]),
    )  # fmt: skip
    return path


def test_predictions_are_put_into_the_order_of_the_records(tmp_path):
    path = write_predictions(tmp_path / "p.npz", ["10_0", "9_0"])
    read = predictions(path, ["9_0", "10_0"])
    assert read.energy.tolist() == [2.0, 1.0]
    assert [each.tolist() for each in read.forces] == [[[3, 4, 5], [6, 7, 8]], [[0, 1, 2]]]


@pytest.mark.parametrize("ids", [["9_0", "10_0", "11_0"], ["9_0"], ["9_0", "10_1"]])
def test_missing_or_foreign_predictions_are_refused(tmp_path, ids):
    path = write_predictions(tmp_path / "p.npz", ["10_0", "9_0"])
    with pytest.raises(DensError, match="2 predictions"):
        predictions(path, ids)


def test_relaxation_errors_by_hand(tmp_path):
    record = Data(
        sid=5, y_relaxed=-1.0, cell=10 * torch.eye(3)[None], fixed=torch.tensor([1, 0, 0]),
        pos=torch.tensor([[0.0, 0, 0], [9.9, 0, 0], [1.0, 1, 1]]),
        pos_relaxed=torch.tensor([[5.0, 5, 5], [0.1, 0, 0], [1.0, 1, 1]]),
    )  # fmt: skip
    np.savez(
        tmp_path / "relaxed.npz", ids=np.array(["5"]), chunk_idx=np.array([], dtype=int),
        pos=np.array([[0.0, 0, 0], [0.1, 0, 0], [1.0, 1, 1.3]]),
    )  # fmt: skip
    atoms = Atoms("H")
    with Trajectory(tmp_path / "5.traj", "w") as frames:
        for energy in (3.0, -0.75):
            atoms.calc = SinglePointCalculator(atoms, energy=energy)
            frames.write(atoms)
    result = relaxation_errors(
        [record], relaxed_energies(tmp_path), relaxed_positions(tmp_path / "relaxed.npz")
    )
    assert result.energy_mae == pytest.approx(250.0)
    assert result.distance == pytest.approx(0.15, abs=1e-6)  # fixed atoms do not count
    assert result.distance_before == pytest.approx(0.1, abs=1e-6)  # across the boundary


def test_table_is_aligned():
    text = format_table(["split", "MAE"], [["val_id", "3.1"], ["a", "10.25"]])
    assert text.splitlines() == ["split     MAE", "------  -----", "val_id    3.1", "a       10.25"]


def test_the_printed_table_has_model_and_trivial_predictors():
    text = s2ef_table({"DeNS": {"val_id": TRUE}}, {"val_id": TRUE}, TRUE)
    rows = [line.split("  ") for line in text.splitlines()]
    rows = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    assert rows[3] == ["val_id", "DeNS", "0", "100.0", "0.0", "0.667"]
    assert rows[4] == ["mean energy, zero force", "500", "0.0", "333.3", "0.000"]
    assert rows[5][0] == "mean of train"


def test_the_printed_relaxation_table():
    text = relaxation_table({"DeNS": {"a": RelaxationErrors(12.4, 0.1, 0.25)}}, {"a": 300.0})
    assert text.splitlines()[-1].split() == ["a", "DeNS", "12", "300", "0.100", "0.250"]
