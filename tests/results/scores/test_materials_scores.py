"""Scores of crystals, against numbers worked out by hand."""

import json

import numpy as np
import pytest

from dens_ocp.data.structures import Structure
from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import Board
from dens_ocp.results.scores.materials_scores import cell_scores
from dens_ocp.results.scores.prediction_files import Predictions, read_predictions
from dens_ocp.results.scores.score_tables import score_json, score_latex, score_table
from dens_ocp.results.scores.scores import s2ef_scores

BOARD = Board("scores", ("a", "b"), ("a", "b"), "float32")


def structure(name, natoms, energy, stress, fixed=0):
    return Structure(
        id=name, sid=name, atomic_numbers=np.ones(natoms, np.int64),
        tags=np.zeros(natoms, np.int64), fixed=np.arange(natoms) < fixed,
        pos=np.zeros((natoms, 3)), cell=np.eye(3), energy=energy, forces=np.zeros((natoms, 3)),
        stress=stress,
    )  # fmt: skip


def predictions(*stress):
    """Energies -1 and -2 eV."""
    stress = None if not stress else np.array(stress)
    return Predictions(
        ["x", "y"], np.array([-1.0, -2.0]), [np.zeros((1, 3)), np.zeros((4, 3))], stress
    )


def test_energy_per_atom_and_stress():
    """By structure: 0.2 eV on 2 atoms, 0.4 eV on 4; one fixed atom counts as an atom."""
    structures = [
        structure("x", 2, -1.2, np.zeros((3, 3)), fixed=1),
        structure("y", 4, -2.4, 0.01 * np.eye(3)),
    ]
    found = s2ef_scores(predictions(np.full((3, 3), 0.003), np.zeros((3, 3))), structures)
    assert found.energy_mae_meV == pytest.approx(1000 * (0.2 + 0.4) / 2)
    assert found.energy_per_atom_mae_meV == pytest.approx(1000 * (0.2 / 2 + 0.4 / 4) / 2)
    # nine components of each: 9 times 0.003, and 3 times 0.01 of 9
    assert found.stress_mae_meV_per_A3 == pytest.approx(1000 * (9 * 0.003 + 3 * 0.01) / 18)


def test_without_stress_the_scores_are_those_of_before():
    structures = [structure("x", 1, -1.0, None), structure("y", 4, -2.0, None)]
    found = s2ef_scores(predictions(), structures)
    assert found.energy_per_atom_mae_meV is None and found.stress_mae_meV_per_A3 is None
    assert "stress" not in score_table({"s2ef": {"a": found}}, BOARD)
    with_labels = [structure("x", 1, -1.0, np.eye(3)), structure("y", 4, -2.0, np.eye(3))]
    assert s2ef_scores(predictions(), with_labels) == found
    zero = np.zeros((3, 3))
    assert s2ef_scores(predictions(zero, zero), structures) == found


def test_a_stress_label_that_is_missing():
    structures = [structure("x", 1, -1.0, np.eye(3)), structure("y", 4, -2.0, None)]
    with pytest.raises(DensError, match="y has no stress label.*r_stress"):
        s2ef_scores(predictions(np.eye(3), np.eye(3)), structures)


def test_a_file_of_predictions_with_stress(tmp_path):
    path = tmp_path / "p.npz"
    stress = np.arange(18.0).reshape(2, 9)
    np.savez(path, ids=["x", "y"], energy=np.zeros((2, 1)), stress=stress)
    found = read_predictions(path)
    np.testing.assert_array_equal(found.stress[1], np.arange(9.0, 18).reshape(3, 3))
    np.testing.assert_array_equal(found.only(["y"]).stress, found.stress[1:])
    np.savez(path, ids=["x", "y"], energy=np.zeros((2, 1)), stress=stress[:1])
    with pytest.raises(DensError, match="2 ids and a stress of shape"):
        read_predictions(path)


def entry(steps, converged, change, failure=""):
    return {
        "energy": -1.0, "n_steps": steps, "converged": converged, "failure": failure,
        "volume_change_percent": change,
    }  # fmt: skip


def test_how_relaxations_ended():
    found = cell_scores({
        "a": entry(10, True, 2.0), "b": entry(500, False, 4.0), "c": entry(7, False, 900.0, "NaN"),
        "d": entry(30, True, 0.0),
    })  # fmt: skip
    assert (found.structures, found.failed, found.converged_percent) == (4, 1, 50.0)
    assert found.mean_steps == 180 and found.mean_volume_change_percent == 2.0
    none = cell_scores({"c": entry(7, False, 900.0, "NaN")})
    assert none.mean_steps is None and none.converged_percent == 0


def test_splits_with_and_without_a_score():
    """A column that one split lacks has no average; JSON stays JSON."""
    full = cell_scores({"a": entry(10, True, 2.0)})
    none = cell_scores({"c": entry(7, False, 900.0, "NaN")})
    scores = {"relax_cell": {"a": full, "b": none}}
    rows = {line.split()[0]: line.split()[1:] for line in score_table(scores, BOARD).splitlines()
            if line[:2].strip() in ("a", "b", "Av")}  # fmt: skip
    assert rows["a"] == ["1", "0", "100.00", "10.0", "2.00"]
    assert rows["b"] == ["1", "1", "0.00", "-", "-"]
    assert rows["Average"] == ["2", "1", "50.00", "-", "-"]
    average = json.loads(score_json(scores, BOARD))["scores"]["relax_cell"]["average"]
    assert average == {"structures": 2, "failed": 1, "converged_percent": 50.0}
    assert r"mean steps" in score_latex(scores, BOARD)
