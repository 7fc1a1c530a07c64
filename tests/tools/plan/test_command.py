"""``dens-ocp plan`` from the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dens_ocp.tools.cli import main
from dens_ocp.tools.plan.text import LIMITS
from tests.conftest import ROOT
from tests.runs import small_config, write_config, write_data

RECIPE = ROOT / "configs/oc20/2M/equiformer_v2_dens_12_epochs.yml"


@pytest.fixture
def small(tmp_path):
    return write_config(tmp_path / "c.yml", small_config(write_data(tmp_path / "data")))


def planned(capsys, *words) -> dict:
    assert main(["plan", *map(str, words), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_small_config_on_its_own_data(small, capsys):
    plan = planned(capsys, small, "--gpus", 2, "--gpu", "a100")
    # 12 records over 2 GPUs, batches of 3: 2 steps, 2 epochs
    assert plan["exact"]["steps"] == 4 and plan["exact"]["global_batch"] == 6
    assert plan["job"]["structures"] == 12 and plan["job"]["degree"] == 12
    natoms = np.load(small.parent / "data/train/metadata.npz")["natoms"]
    assert plan["job"]["atoms"] == pytest.approx(natoms.mean())
    assert plan["memory"]["fits"] and plan["memory"]["largest_batch"] > 100
    times = plan["time"]
    assert times["low"]["gpu_hours"] < times["expected"]["gpu_hours"] < times["high"]["gpu_hours"]
    assert plan["paper_gpu_hours"] is None


def test_cpu_is_measured(small, capsys):
    assert main(["plan", str(small), "--gpus", "1", "--gpu", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "measured here (CPU" in shown and "seconds = " in shown and "blocks" in shown
    assert shown.rstrip().endswith(LIMITS[-1])


def test_a_recipe_without_measuring(capsys):
    plan = planned(capsys, RECIPE, "--gpus", 16, "--no-measure", "--gpu", "v100")
    assert plan["exact"]["parameters"] == 89_148_163
    assert plan["exact"]["steps"] == 375_000 and plan["job"]["nodes"] == 2
    assert plan["memory"] is None and plan["paper_gpu_hours"] == 1501
    assert plan["time"]["expected"]["gpu_hours"] == pytest.approx(1501, rel=0.01)
    # twice the GPUs: half the steps, the same GPU-hours as long as communication is hidden
    more = planned(capsys, RECIPE, "--gpus", 32, "--no-measure", "--gpu", "v100")
    assert more["exact"]["steps"] == 375_000 // 2
    assert more["time"]["expected"]["gpu_hours"] == pytest.approx(1501, rel=0.01)
    # on a network of 1 Gbit/s it is not
    words = ["--gpus", 32, "--no-measure", "--gpu", "v100", "--inter-node-gb-s", 0.125]
    slow = planned(capsys, RECIPE, *words)
    assert slow["time"]["expected"]["gpu_hours"] > 5 * 1501


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gpus", "10", "--nodes", "4"], "--gpus: 10"),
        (["--gpus", "0"], "--gpus: 0"),
        (["--gpus", "2", "--overlap", "3"], "--overlap: 3"),
        (["--gpus", "2", "--optim.batch_size=0"], "optim.batch_size: 0"),
        (["--gpus", "2", "--dataset.train.src=nowhere"], "--structures 2000000"),
        (["--gpus", "2", "--gpu", "cpu", "--no-measure"], "--no-measure"),
        (["--gpus", "2", "--model.num_layer=2"], "num_layer, did you mean 'num_layers'"),
    ],
)
def test_mistakes(small, capsys, words, said):
    assert main(["plan", str(small), *words]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and "Traceback" not in shown.err and not shown.out
