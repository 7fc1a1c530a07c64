"""Logged numbers of a run, and what is done to them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dens_ocp.results.report.scalars import read_series, smooth, tail


def test_a_run_that_went_on_has_each_step_once(tmp_path):
    rows = [("train", 1, 1.0), ("train", 2, 2.0), ("train", 3, 3.0), ("val", 5, None),
            ("train", 2, 20.0)]  # fmt: skip
    (tmp_path / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"split": split, "step": step, "epoch": 0.1, "time": 1.0, "a": value}) + "\n"
            for split, step, value in rows
        )
        + '{"split": "tr'  # is being written
    )
    series = read_series(tmp_path)
    assert set(series) == {"train/a", "val/a"}
    assert [each.tolist() for each in series["train/a"]] == [[1, 2, 3], [1.0, 20.0, 3.0]]
    assert np.isnan(series["val/a"][1]).all()  # NaN and infinity are null in the file
    assert read_series(tmp_path / "nowhere") == {}


def test_tails_and_means():
    assert tail(np.arange(100.0)).tolist() == list(range(90, 100))
    assert tail(np.array([5.0])).tolist() == [5.0]
    means = smooth(np.array([0.0, 3.0, 6.0, 0.0]), reach=1)[1:3]
    assert means == pytest.approx([3.0, 3.0], rel=1e-12)


@pytest.mark.parametrize("number", [3, 4, 5, 7, 12, 40])
def test_a_straight_line_stays_straight_to_its_ends(number):
    line = 5.0 - 0.1 * np.arange(number)
    assert np.allclose(smooth(line), line)


def test_the_mean_does_not_bend_at_its_end():
    """A falling curve with noise: the last slopes are those before, and within the values."""
    rng = np.random.default_rng(0)
    values = np.linspace(10, 1, 60) + 0.2 * rng.normal(size=60)
    smoothed = smooth(values)
    slopes = np.diff(smoothed)
    assert abs(slopes[-3:].mean() - slopes[3:-3].mean()) < 0.1
    assert np.allclose(smoothed[3:-3], np.convolve(values, np.ones(7) / 7, "valid"))
    steep = smooth(np.array([100.0, 100, 100, 100, 10, 1, 0.1, 0.01]))
    assert (steep > 0).all() and (steep <= 100).all()


def test_values_that_are_no_numbers_stay_and_do_not_spread():
    values = np.r_[np.arange(6.0), np.nan, np.arange(6.0), np.inf]
    smoothed = smooth(values)
    assert np.isnan(smoothed[6]) and np.isinf(smoothed[-1])
    assert np.allclose(smoothed[:6], np.arange(6.0)) and np.allclose(smoothed[7:13], np.arange(6.0))
    assert smooth(np.array([])).size == 0 and smooth(np.array([2.0])).tolist() == [2.0]
