"""``task.eval_relaxations``: a relaxation at each validation, and training goes on as before."""

import re

import pytest
import torch

from dens_ocp.errors import DensError
from tests.lmdbs import write_s2ef
from tests.relaxation import relaxations
from tests.relaxation.relaxations import OURS, STOCK
from tests.runs import make_trainer, run, small_config, write_config


@pytest.fixture
def settings(systems, tmp_path):
    write_s2ef(tmp_path / "train", 6)
    write_s2ef(tmp_path / "val", 3, seed=1)
    settings = small_config(tmp_path, max_epochs=2, eval_every=3)
    settings["optim"]["scheduler_params"]["warmup_epochs"] = 1
    settings["dataset"]["relax"] = {"src": str(systems)}
    settings["task"] = {
        "eval_relaxations": True, "relaxation_steps": 2,
        "relax_opt": {"name": "lbfgs", "traj_dir": str(tmp_path / "t")},
    }  # fmt: skip
    return settings


@pytest.mark.parametrize("name", [STOCK, OURS])
def test_weights_after_a_relaxation(settings, tmp_path, name):
    """fairchem leaves the averaged weights in the model, and training goes on from them."""
    del settings["task"]["relax_opt"]["name"]
    trainer = make_trainer(settings, tmp_path, name)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter += 0.01
    before = [parameter.clone() for parameter in trainer.model.parameters()]
    trainer.run_relaxations()
    same = [torch.equal(*pair) for pair in zip(before, trainer.model.parameters(), strict=True)]
    assert all(same) == (name == OURS)
    assert trainer.ema is not None


def test_through_the_command_line(settings, tmp_path):
    """Without task.relax_dataset, at steps 3 and 4 (the last); fairchem warns and relaxes none."""
    config = write_config(tmp_path / "c.yml", settings)
    done = run("train", config, cwd=tmp_path)
    lines = re.findall(r"Relaxations of 5 systems: .*is2re_energy_mae: ([\d.]+)", done.stdout)
    assert len(lines) == 2 and lines[0] != lines[1]
    for step in (3, 4):
        frames = relaxations.last_frames(tmp_path / "t" / f"step_{step}")
        assert len(frames) == 5 and all(frames.values())
    (checkpoint,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
    task = torch.load(checkpoint, weights_only=False)["config"]["task"]
    assert task["relax_opt"] == settings["task"]["relax_opt"]


def test_no_data_set(settings, tmp_path):
    del settings["dataset"]["relax"]
    with pytest.raises(DensError, match="dataset.relax.src is missing"):
        make_trainer(settings, tmp_path).train(disable_eval_tqdm=True)
