"""Each check finds what it is for, and is silent otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dens_ocp.config import DeNSConfig
from dens_ocp.report import verdict
from dens_ocp.report.breakdown import Scores
from dens_ocp.report.relaxation_files import Relaxations
from dens_ocp.report.verdict import BAD, GOOD, NOTE, Check, SplitNumbers

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


def test_validation_has_settled_when_the_learning_rate_has_come_down():
    falling = series("val/forces_mae", 0.2, 0.18, 0.14, 0.1)
    found = verdict.validation({**falling, **series("train/lr", 0.001, 0.0005, 1e-5)})
    assert found.level == GOOD and "1 % of its peak" in found.text
    assert verdict.validation({}) is None


@pytest.mark.parametrize(("last", "level"), [(0.03, GOOD), (0.079, BAD), (float("nan"), BAD)])
def test_noise(last, level):
    found = verdict.noise(series("train/dens_noise_mae", 0.08, last), DENS, every=10)
    assert found.level == level and "0.080 Å" in found.text


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
    assert verdict.corrupted_share(logged, DENS, 10, batch_size=4, md_possible=md).level == level


def scores(energy=100.0, force=20.0):
    return Scores(5, energy, force, 0.9, 1.0, mean_energy_mae=500.0, zero_force_mae=100.0)


def test_splits():
    good = {"id": SplitNumbers(scores()), "ood": SplitNumbers(scores(force=30))}
    (found,) = verdict.splits(good)
    assert found.level == GOOD and "20 to 30 % of predicting zero" in found.text
    assert "20 % of predicting the mean" in found.text
    found = verdict.splits({**good, "b": SplitNumbers(scores(force=97))})
    assert [(each.level, each.subject) for each in found] == [(BAD, "b"), (GOOD, "Predictions")]
    (found,) = verdict.splits({"b": SplitNumbers(scores(energy=450))})
    assert found.level == NOTE and "90 %" in found.text
    (found,) = verdict.splits({"b": SplitNumbers(scores(), not_finite=2, missing=1)})
    assert found.level == BAD and "2 predictions are NaN" in found.text and "1 struc" in found.text
    nothing = Scores(0, None, None, None, None, None, None)
    assert verdict.splits({"b": SplitNumbers(nothing, not_finite=3)})[0].level == BAD


def test_relaxations():
    done = Relaxations([], 4, 0, np.array([3, 10, 10, 10]), np.array([0.03, 0.01, 0.5, 0.5]),
                       np.zeros(0))  # fmt: skip
    assert done.converged(0.02).tolist() == [False, True, False, False]
    assert [each.level for each in verdict.relaxations({"id": done}, 0.03)] == [GOOD]
    assert [each.level for each in verdict.relaxations({"id": done}, 0.02)] == [NOTE]
    damaged = Relaxations([], 1, 1, np.zeros(0), np.zeros(0), np.zeros(0))
    assert [each.level for each in verdict.relaxations({"id": damaged}, 0.02)] == [BAD]
