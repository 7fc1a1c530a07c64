"""Logged numbers, from tensorboard and from wandb's own files."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from dens_ocp.errors import DensError
from dens_ocp.results.report.scalars import collected, smooth, tail, window_ends
from dens_ocp.results.report.tensorboard_curves import read_scalars
from dens_ocp.results.report.wandb_curves import read_wandb, run_files
from tests.runs import environment


def test_a_run_that_went_on_has_each_step_once():
    rows = [("a", 1, 1.0), ("a", 2, 2.0), ("a", 3, 3.0), ("b", 5, 0.5), ("a", 2, 20.0)]
    series = collected(rows)
    assert [each.tolist() for each in series["a"]] == [[1, 2, 3], [1.0, 20.0, 3.0]]
    assert series["b"][1].tolist() == [0.5]


def test_windows_tails_means():
    steps, values = window_ends(np.arange(3, 9), np.arange(3.0, 9.0), 4)
    assert steps.tolist() == [4, 8] and values.tolist() == [4.0, 8.0]
    assert tail(np.arange(100.0)).tolist() == list(range(90, 100))
    assert tail(np.array([5.0])).tolist() == [5.0]
    assert smooth(np.array([0.0, 3.0, 6.0, 0.0]), reach=1)[1:3].tolist() == [3.0, 3.0]


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


def test_tensorboard(tmp_path):
    for shift in (0, 1):  # two files, as of a run that was stopped
        with SummaryWriter(tmp_path) as writer:
            for step in (1, 2, 3):
                writer.add_scalar("train/loss", step + 10 * shift, step + shift)
    steps, values = read_scalars(tmp_path)["train/loss"]
    assert steps.tolist() == [1, 2, 3, 4] and values[0] == 1 and values[-1] == 13
    with pytest.raises(DensError, match="no tensorboard files"):
        read_scalars(tmp_path / "nowhere")


OFFLINE = """
import sys, wandb
run = wandb.init(dir=sys.argv[1], id="first-1", resume="allow")
for step in range(1, 2001):
    wandb.log({"train/loss": 1 / step, "train/text": "x" * 40}, step=step)
    if step % 1000 == 0:
        wandb.log({"val/forces_mae": 0.5 / step}, step=step)
wandb.finish()
"""


@pytest.fixture(scope="module")
def wandb_run(tmp_path_factory):
    """A real offline run of wandb, longer than some blocks of its file."""
    folder = tmp_path_factory.mktemp("wandb")
    variables = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(folder)}
    command = [sys.executable, "-c", OFFLINE, str(folder)]
    subprocess.run(command, env=environment(**variables), check=True, timeout=120)
    return folder


def test_wandb_offline(wandb_run):
    assert run_files(wandb_run)[0].stat().st_size > 3 * 32768
    series = read_wandb(wandb_run)
    assert set(series) == {"train/loss", "val/forces_mae"}
    steps, values = series["train/loss"]
    assert steps.tolist() == list(range(1, 2001)) and np.allclose(values, 1 / steps)
    assert series["val/forces_mae"][1].tolist() == [0.5e-3, 0.25e-3]


def test_wandb_of_a_killed_run(wandb_run, tmp_path):
    whole = run_files(wandb_run)[0].read_bytes()
    (tmp_path / "run-1.wandb").write_bytes(whole[: len(whole) // 2])
    steps, values = read_wandb(tmp_path)["train/loss"]
    assert 500 < len(steps) < 1500 and np.allclose(values, 1 / steps)


def test_wandb_files_of_another_kind(tmp_path):
    with pytest.raises(DensError, match="no wandb run"):
        read_wandb(tmp_path)
    (tmp_path / "run-1.wandb").write_bytes(b"something else")
    with pytest.raises(DensError, match="run-1.wandb is not a wandb run file"):
        read_wandb(tmp_path)
