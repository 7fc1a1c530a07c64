"""``dens: auto`` in a training run, and ``dens-ocp data suggest``."""

import re

import pytest
import torch
import yaml

from dens_ocp.cli import main
from dens_ocp.config import DeNSConfig
from tests.runs import make_trainer, run, small_config, write_config, write_data


def test_the_trainer_picks_and_records(tmp_path):
    config = small_config(write_data(tmp_path), dens=None)
    config["optim"]["dens"] = "auto"
    trainer = make_trainer(config, tmp_path)
    assert isinstance(trainer.dens, DeNSConfig) and not trainer.dens.auto
    recorded = trainer.config["optim"]["dens"]
    assert recorded == trainer.dens.model_dump()
    assert yaml.safe_load(yaml.safe_dump(recorded)) == recorded
    # forces of the test data have rms 1, their scale in the config is 1.7
    assert recorded["coefficient"] == pytest.approx(0.35 * 100 / 1.7, rel=0.25)
    assert 0.05 <= recorded["sigma"] <= 0.2


def test_suggest_says_what_the_trainer_picks(tmp_path, capsys):
    config = small_config(write_data(tmp_path), dens=None)
    config["optim"]["dens"] = "auto"
    path = write_config(tmp_path / "config.yml", config)
    assert main(["data", "suggest", str(path)]) == 0
    shown = capsys.readouterr().out
    picked = yaml.safe_load(re.search(r"^optim:\n(?: .*\n)+", shown, re.M)[0])["optim"]["dens"]
    dens = make_trainer(config, tmp_path).dens.model_dump()
    assert picked == {name: dens[name] for name in picked} and "sigma" in picked
    assert all(name in shown for name in ("OC20 2M", "OC22", "MD17"))
    assert main(["data", "suggest", str(tmp_path / "train")]) == 0
    assert main(["data", "suggest", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert main(["data", "suggest", str(path), "--dataset.train.src=gone"]) == 2
    assert "gone does not exist" in capsys.readouterr().err


def test_evaluation_needs_no_training_set(tmp_path):
    config = small_config(write_data(tmp_path), dens=None)
    config["optim"]["dens"] = "auto"
    del config["dataset"]["train"]
    config["dataset"]["val"]["key_mapping"] = {"y": "energy", "force": "forces"}
    assert make_trainer(config, tmp_path).dens.auto


@pytest.mark.slow
def test_two_ranks(tmp_path):
    config = small_config(write_data(tmp_path / "data"), dens=None, max_epochs=1)
    config["optim"]["dens"] = "auto"
    path = write_config(tmp_path / "config.yml", config)
    done = run("train", path, "--num-gpus", "2", "--timestamp-id", "auto", cwd=tmp_path)
    assert "optim.dens.sigma: auto picked" in done.stdout + done.stderr
    checkpoint = torch.load(tmp_path / "checkpoints/auto/checkpoint.pt", weights_only=False)
    assert checkpoint["config"]["optim"]["dens"]["auto"] is False
    assert "dens_noise_mae" in done.stdout + done.stderr
