"""Errors by what structures are made of: hand-computed, and as fairchem's Evaluator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from fairchem.core.modules import evaluator

from dens_ocp.data.structures import Structure, structure
from dens_ocp.errors import DensError
from dens_ocp.results.report.breakdown import (
    MAGNITUDES,
    Breakdown,
    Sample,
    adsorbate_formula,
    surface_elements,
)
from tests.conftest import slab


def made(numbers, tags, energy=None, forces=None, fixed=None, name="0_0"):
    count = len(numbers)
    return Structure(
        id=name,
        sid=name.partition("_")[0],
        atomic_numbers=np.array(numbers),
        tags=np.array(tags),
        fixed=np.zeros(count, bool) if fixed is None else np.array(fixed, bool),
        pos=np.zeros((count, 3)),
        cell=np.eye(3),
        energy=energy,
        forces=None if forces is None else np.array(forces, float),
    )


@pytest.fixture
def two():
    """Cu with O and Pt with OH; the subsurface atom is fixed."""
    result = Breakdown()
    first = made([29, 29, 8], [0, 1, 2], 1.0, [[9, 9, 9], [0, 0, 0.3], [3, 0, 0]], [1, 0, 0], "1_0")
    # errors: energy 0.5; Cu (0, 0, 0.3) against zero; O exact
    result.add(first, 1.5, np.array([[0, 0, 0.0], [3, 0, 0]]))
    second = made([78, 8, 1], [1, 2, 2], -1.0, np.zeros((3, 3)), name="2_0")
    # errors: energy 0.01; H (0.02, 0.02, 0.02)
    result.add(second, -1.01, np.array([[0, 0, 0], [0, 0, 0], [0.02, 0.02, 0.02]]))
    return result


def test_by_hand(two):
    scores = two.scores()
    assert scores.structures == 2
    assert scores.energy_mae == pytest.approx(255)
    assert scores.force_mae == pytest.approx(1000 * (0.3 + 0.06) / 15)  # five free atoms
    assert scores.zero_force_mae == pytest.approx(1000 * 3.3 / 15)
    assert scores.mean_energy_mae == pytest.approx(1000)  # 1 and -1 about 0
    assert scores.force_cosine == pytest.approx(1 / 5)  # O is right; the others have a zero
    assert scores.efwt == 50  # the second structure


@pytest.mark.parametrize(
    ("kind", "key", "structures", "energy", "atoms", "force"),
    [
        ("element", "Cu", 1, 500, 1, 100),
        ("element", "O", 2, 255, 2, 0),
        ("element", "H", 1, 10, 1, 20),
        ("element", "Pt", 1, 10, 1, 0),
        ("tag", "surface (tag 1)", 0, None, 2, 50),
        ("tag", "adsorbate (tag 2)", 0, None, 3, 20 / 3),
        ("adsorbate", "O", 1, 500, 2, 50),
        ("adsorbate", "OH", 1, 10, 3, 20 / 3),
        ("surface", "Cu", 1, 500, 2, 50),
        ("surface", "Pt", 1, 10, 3, 20 / 3),
    ],
)
def test_groups_by_hand(two, kind, key, structures, energy, atoms, force):
    group = two.groups[kind][key]
    assert (group.structures, group.atoms) == (structures, atoms)
    assert group.energy_mae == (None if energy is None else pytest.approx(energy))
    assert group.force_mae == pytest.approx(force)


def test_groups_are_complete(two):
    assert {kind: set(groups) for kind, groups in two.groups.items()} == {
        "element": {"H", "O", "Cu", "Pt"},
        "tag": {"surface (tag 1)", "adsorbate (tag 2)"},
        "adsorbate": {"O", "OH"},
        "surface": {"Cu", "Pt"},
    }


def test_force_error_by_magnitude(two):
    number, true, wrong = two.magnitude.T
    place = {name: np.digitize(value, MAGNITUDES) - 1 for name, value in
             {"none": 0.0, "Cu": 0.3, "O": 3.0}.items()}  # fmt: skip
    assert number[place["none"]] == 3 and number[place["Cu"]] == number[place["O"]] == 1
    assert number.sum() == 5
    assert true[place["Cu"]] == pytest.approx(0.3) and wrong[place["Cu"]] == pytest.approx(0.3)
    assert wrong[place["O"]] == 0
    assert wrong[place["none"]] == pytest.approx(0.02 * 3**0.5)


def test_worst_structures(two):
    assert [(round(error), name, ads, surface) for error, name, ads, surface in two.worst] == [
        (500, "1_0", "O", "Cu"),
        (10, "2_0", "OH", "Pt"),
    ]


def test_as_fairchems_evaluator():
    rng = np.random.default_rng(0)
    breakdown, predicted, true, natoms = Breakdown(), [], [], []
    for number in range(30):
        each = structure(slab(("Cu", "Pt")[number % 2], "O", number))
        scale = 0.01 if number % 3 else 0.5
        energy = each.energy + scale * rng.normal()
        forces = each.forces[each.free] + scale * rng.normal(size=(each.free.sum(), 3))
        breakdown.add(each, energy, forces)
        predicted.append((energy, forces))
        true.append((each.energy, each.forces[each.free]))
        natoms.append(each.free.sum())

    def tensors(pairs):
        energies, forces = zip(*pairs, strict=True)
        return {
            "energy": torch.tensor(energies)[:, None],
            "forces": torch.tensor(np.concatenate(forces)),
            "natoms": torch.tensor(np.array(natoms)),
        }

    mine, labels, scores = tensors(predicted), tensors(true), breakdown.scores()
    expected = {
        "energy_mae": 1000 * evaluator.mae(mine, labels, "energy")["metric"],
        "force_mae": 1000 * evaluator.mae(mine, labels, "forces")["metric"],
        "force_cosine": evaluator.cosine_similarity(mine, labels, "forces")["metric"],
        "efwt": 100 * evaluator.energy_forces_within_threshold(mine, labels)["metric"],
    }
    assert 0 < expected["efwt"] < 100
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(float(value), rel=1e-6), name


def test_forces_of_all_atoms_are_cut_to_the_free_ones():
    each = structure(slab("Cu", "O"))
    breakdown = Breakdown()
    breakdown.add(each, each.energy, each.forces)
    assert breakdown.scores().force_mae == 0
    with pytest.raises(DensError, match="4 forces are predicted for a structure of 9 atoms, 5 of"):
        breakdown.add(each, 0.0, np.zeros((4, 3)))


@pytest.mark.parametrize("energy", [np.nan, np.inf])
def test_not_finite_predictions_are_counted_and_left_out(energy):
    each, breakdown = structure(slab("Cu", "O")), Breakdown()
    breakdown.add(each, energy, each.forces)
    breakdown.add(each, 0.0, np.where(np.arange(3) == 1, np.nan, each.forces))
    assert breakdown.not_finite == 2 and breakdown.structures == 0
    assert breakdown.scores().energy_mae is None


def test_labels_of_one_kind_only():
    breakdown = Breakdown()
    breakdown.add(made([29], [1], energy=1.0), 1.5, np.zeros((1, 3)))
    scores = breakdown.scores()
    assert scores.energy_mae == 500 and scores.force_mae is None and scores.efwt is None


def test_formulas():
    each = made([29, 78, 29, 6, 1, 1, 8], [0, 1, 1, 2, 2, 2, 2])
    assert adsorbate_formula(each) == "CH2O" and surface_elements(each) == "Cu-Pt"
    assert adsorbate_formula(made([29], [1])) == "none"


@pytest.mark.parametrize(
    ("numbers", "formula"),
    [
        ([7, 1], "NH"), ([8, 1], "OH"), ([1, 8, 1], "H2O"), ([7, 1, 1, 1], "NH3"), ([7, 8], "NO"),
        ([6, 8], "CO"), ([6, 1, 8], "CHO"), ([6, 1], "CH"), ([7, 7, 1], "N2H"), ([6, 7], "CN"),
        ([6] * 2 + [1] * 6 + [8], "C2H6O"), ([1], "H"), ([8, 8], "O2"),
    ],
)  # fmt: skip
def test_formulas_are_those_that_chemists_write(numbers, formula):
    each = made([29, *numbers], [1] + [2] * len(numbers))
    assert adsorbate_formula(each) == formula
    breakdown = Breakdown()
    breakdown.add(dataclasses.replace(each, energy=0.0), 0.0, None)
    assert breakdown.has_adsorbates


def test_molecules_have_no_adsorbate():
    breakdown = Breakdown()
    breakdown.add(made([6, 8, 1], [0, 0, 0], energy=0.0), 0.0, None)
    assert not breakdown.has_adsorbates


# ---- samples -----------------------------------------------------------------------------------


def test_a_small_sample_is_everything_in_its_order():
    sample = Sample(10, 2)
    for piece in (np.ones((3, 2)), np.zeros((2, 2))):
        sample.add(piece)
    assert sample.seen == 5 and sample.rows[:, 0].tolist() == [1, 1, 1, 0, 0]
    assert Sample(10, 2).rows.shape == (0, 2)


def test_a_sample_is_bounded_and_fair():
    hits = np.zeros(300)
    for seed in range(200):
        sample = Sample(30, 1, seed)
        for start in range(0, 300, 7):
            sample.add(np.arange(start, min(start + 7, 300))[:, None])
            assert sample._held <= 60 + 7
        assert sample.seen == 300 and len(sample.rows) == len(set(sample.rows[:, 0])) == 30
        hits[sample.rows[:, 0].astype(int)] += 1
    thirds = hits.reshape(3, 100).sum(1) / hits.sum()
    assert np.allclose(thirds, 1 / 3, atol=0.03)
