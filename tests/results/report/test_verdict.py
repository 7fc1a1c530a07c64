"""Each check finds what it is for, and is silent otherwise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.results.report import verdict
from dens_ocp.results.report.breakdown import Scores
from dens_ocp.results.report.relaxation_files import Relaxations
from dens_ocp.results.report.verdict import BAD, GOOD, NOTE, Check

DENS = DeNSConfig(p=0.5, r=0.5, sigma=0.1)


def series(tag, *values):
    return {tag: (10 * np.arange(1, len(values) + 1), np.array(values, float))}


def test_worst():
    checks = [Check(GOOD, "a", ""), Check(BAD, "b", ""), Check(NOTE, "c", "")]
    assert verdict.worst(checks) == BAD and verdict.worst(checks[:1]) == GOOD


def test_noise_of_zero():
    assert verdict.noise_of_zero(DENS) == pytest.approx(0.1 * math.sqrt(2 / math.pi))
    schedule = DeNSConfig(sigma={"low": 0.1, "high": 0.4, "num_steps": 3})
    expected = (0.1 + 0.2 + 0.4) / 3 * math.sqrt(2 / math.pi)
    assert verdict.noise_of_zero(schedule) == pytest.approx(expected)


def test_finite():
    assert verdict.finite(series("train/loss", 1, 2)).level == GOOD
    found = verdict.finite(series("train/loss", 1, float("nan"), 2))
    assert found.level == BAD and "train/loss" in found.text and "step 20" in found.text


def test_finished():
    assert verdict.finished(10.0, 10).level == GOOD
    assert verdict.finished(9.5, 10).level == NOTE
    assert verdict.finished(None, 10) is None


@pytest.mark.parametrize(
    ("values", "level", "says"),
    [
        ((0.2, 0.15, 0.101, 0.1), GOOD, "settled: 100.0 meV/Å"),
        ((0.2, 0.18, 0.14, 0.1), NOTE, "still falls"),
        ((0.2, 0.1, 0.11, 0.12), BAD, "100.0 at step 20"),
        ((0.2, 0.1), NOTE, "Only 2"),
    ],
)
def test_validation(values, level, says):
    found = verdict.validation(series("val/forces_mae", *values))
    assert found.level == level and says in found.text


def test_a_falling_curve_has_not_settled_when_the_learning_rate_has_come_down():
    falling = series("val/forces_mae", 0.2, 0.18, 0.14, 0.1)
    found = verdict.validation({**falling, **series("train/lr", 0.001, 0.0005, 1e-5)})
    assert found.level == GOOD and "1 % of its peak" in found.text
    assert "fell up to the end of the schedule: 100.0" in found.text
    assert "28.6 % lower than at step 30" in found.text and "settled" not in found.text
    flat = series("val/forces_mae", 0.2, 0.1, 0.1, 0.1)
    found = verdict.validation({**flat, **series("train/lr", 0.001, 0.0005, 1e-5)})
    assert found.level == GOOD and "has settled: 100.0 meV/Å, 0.0 % lower" in found.text
    assert verdict.validation({}) is None


def test_a_little_higher_is_not_called_lower():
    found = verdict.validation(series("val/forces_mae", 0.2, 0.1, 0.1, 0.102))
    assert found.level == GOOD and "2.0 % higher than at step 30" in found.text


@pytest.mark.parametrize("last", [float("nan"), float("inf")])
def test_a_last_validation_that_is_no_number_neither_falls_nor_settles(last):
    found = verdict.validation(series("val/forces_mae", 0.2, 0.15, 0.1, last))
    assert found.level == BAD and "(step 40) is NaN or infinite" in found.text
    between = verdict.validation(series("val/forces_mae", 0.2, last, 0.101, 0.1))
    assert between.level == GOOD and "nan" not in between.text and "inf" not in between.text


def test_best_checkpoint_is_named_only_where_this_metric_chose_it():
    rising = series("val/forces_mae", 0.2, 0.1, 0.15, 0.2)
    for primary, named in (("forces_mae", True), ("energy_mae", False), (None, False)):
        found = verdict.validation(rising, primary)
        assert found.level == BAD and ("best_checkpoint.pt" in found.text) == named
    energies = verdict.validation(series("val/energy_mae", 0.2, 0.1))
    assert energies.text == "Only 2 validations; energy MAE 100.0 meV."


@pytest.mark.parametrize(("last", "level"), [(0.03, GOOD), (0.079, BAD), (float("nan"), BAD)])
def test_noise(last, level):
    found = verdict.noise(series("train/dens_noise_mae", 0.08, last), DENS)
    assert found.level == level and "0.080 Å" in found.text


@pytest.mark.parametrize(
    ("last", "says"),
    [(0.0797, "worse than"), (0.078, "almost nothing: noise MAE 0.078"), (0.03, "works")],
)
def test_noise_says_what_is_so(last, says):
    """Predicting none gives 0.0798: 0.078 is 2 % better, not nothing; 0.0799 is worse."""
    last = 0.0799 if says == "worse than" else last
    found = verdict.noise(series("train/dens_noise_mae", 0.08, last), DENS)
    assert says in found.text and ("predicts nothing" in found.text) is False


@pytest.mark.parametrize(
    ("share", "structures", "md", "level"),
    [
        (0.25, 0.5, False, GOOD),
        (0.19, 0.38, False, BAD),
        (0.19, 0.38, True, GOOD),
        (0.10, 0.38, True, BAD),  # a quarter of the atoms of DeNS structures: r is not one half
        (0.40, 0.5, True, BAD),
        (0.0, 0.0, True, BAD),
    ],
)
def test_corrupted_share(share, structures, md, level):
    logged = {
        **series("train/dens_corrupted_atoms", *[share] * 100),
        **series("train/dens_structures", *[structures] * 100),
    }
    assert verdict.corrupted_share(logged, DENS, batch_size=4, md_possible=md).level == level


def scores(energy=100.0, force=20.0, **others):
    return Scores(5, energy, force, 0.9, 1.0, 500.0, zero_force_mae=100.0, **others)


def test_splits():
    good = {"id": scores(), "ood": scores(force=30)}
    (found,) = verdict.splits(good)
    assert found.level == GOOD and "20 to 30 % of predicting zero" in found.text
    assert "20 % of predicting the split's mean (id, ood)" in found.text
    found = verdict.splits({**good, "b": scores(force=97)})
    assert [(each.level, each.subject) for each in found] == [(BAD, "b"), (GOOD, "Predictions")]
    (found,) = verdict.splits({"b": scores(energy=450)})
    assert found.level == NOTE and "90 %" in found.text
    (found,) = verdict.splits({"b": scores(not_finite=2, missing=1)})
    assert found.level == BAD and "2 predictions are NaN" in found.text and "1 struc" in found.text
    nothing = Scores(0, None, None, None, None, None, None)
    assert verdict.splits({"b": replace(nothing, not_finite=3)})[0].level == BAD


@pytest.mark.parametrize(
    ("force", "says"),
    [
        (106.4, "Its"), (109.5, "is no better than that of predicting zero (109.5)"),
        (120.0, "is no better than that of predicting zero (109.5)"),
    ],
)  # fmt: skip
def test_a_smaller_error_is_not_called_no_better(force, says):
    its = Scores(5, 100.0, force, 0.9, 1.0, mean_energy_mae=500.0, zero_force_mae=109.5)
    (found,) = verdict.splits({"ood_BOTH": its})
    assert found.level == BAD
    if force < 109.5:
        assert "(106.4 meV/Å) is only 2.8 % below that of predicting zero (109.5)" in found.text
        assert "no better" not in found.text
    else:
        assert says in found.text
    energy = Scores(5, 490.0, 20.0, 0.9, 1.0, mean_energy_mae=500.0, zero_force_mae=109.5)
    (found,) = verdict.splits({"id": energy})
    assert "energy MAE (490.0 meV) is only 2.0 % below that of the split's mean" in found.text


def test_names_of_splits_keep_their_letters():
    (found,) = verdict.splits({"val_ID": scores()})
    assert found.text.startswith("Force errors are") and "(val_ID)" in found.text


def test_relaxations():
    done = Relaxations([], 4, 0, np.array([3, 10, 10, 10]), np.array([0.03, 0.01, 0.5, 0.5]),
                       np.zeros(0))  # fmt: skip
    assert done.converged(0.02).tolist() == [False, True, False, False]
    assert [each.level for each in verdict.relaxations({"id": done}, 0.03)] == [GOOD]
    assert [each.level for each in verdict.relaxations({"id": done}, 0.02)] == [NOTE]
    damaged = Relaxations([], 1, 1, np.zeros(0), np.zeros(0), np.zeros(0))
    assert [each.level for each in verdict.relaxations({"id": damaged}, 0.02)] == [BAD]
