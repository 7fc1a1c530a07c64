"""``dens: auto`` in a training run, and ``dens-ocp data suggest``."""

import re

import pytest
import torch
import yaml

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.tools.cli import main
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
    assert re.search(
        r"Does DeNS lower the errors with \d+ structures, \d+ epochs, [\d,]+ parameters\?", shown
    )
    assert main(["data", "suggest", str(tmp_path / "train")]) == 0
    assert "Does DeNS lower the errors" not in capsys.readouterr().out  # nobody has said how long
    assert main(["data", "suggest", str(tmp_path / "train"), "--epochs", "40"]) == 0
    assert re.search(
        r"Does DeNS lower the errors with \d+ structures, 40 epochs\?\n", capsys.readouterr().out
    )
    # of a model that cannot be built nothing is counted, and the options are suggested
    assert main(["data", "suggest", str(path), "--model.unknown=1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"Does DeNS lower the errors with \d+ structures, \d+ epochs\?\n", shown)
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
    assert "noise MAE" in done.stdout


@pytest.mark.parametrize("with_scale", [True, False])
def test_fine_tuning_is_picked_for_the_scale_of_the_checkpoint(tmp_path, caplog, with_scale):
    """Its normalizers replace those of the config, in whose units lambda was picked."""
    data = write_data(tmp_path)
    config = small_config(data, dens=None)
    config["optim"]["dens"] = "auto"
    from_scratch = make_trainer(config, tmp_path)
    state = {
        "state_dict": from_scratch.model.state_dict(), "config": from_scratch.config,
        "normalizers": {
            name: each.state_dict() for name, each in from_scratch.normalizers.items() if with_scale
        },
    }  # fmt: skip
    path = tmp_path / "pretrained.pt"
    torch.save(state, path)
    for stdev in (1.7, 0.085):
        config["dataset"]["train"]["transforms"]["normalizer"]["forces"]["stdev"] = stdev
        trainer = make_trainer(config, tmp_path)
        before = trainer.dens.coefficient
        with caplog.at_level("INFO"):
            caplog.clear()
            trainer.load_checkpoint(str(path))
        assert trainer._force_scale == pytest.approx(1.7 if with_scale else stdev)
        expected = 20.0 if with_scale or stdev == 1.7 else 400.0
        assert trainer.dens.coefficient == expected, "0.35 x 100 x rms 1 / scale, rounded"
        assert trainer.config["optim"]["dens"] == trainer.dens.model_dump()
        assert ("auto picks the options again" in caplog.text) == (before != expected)


def test_forces_of_a_gradient_model_keep_the_scale_of_its_energy(tmp_path):
    """Also when the checkpoint has another one, as fairchem's have."""
    from tests.training.test_plain_ddp import GRADIENT

    config = small_config(write_data(tmp_path), model=GRADIENT)
    trainer = make_trainer(config, tmp_path)
    state = {
        "state_dict": trainer.model.state_dict(), "config": trainer.config,
        "normalizers": {name: each.state_dict() for name, each in trainer.normalizers.items()},
    }  # fmt: skip
    state["normalizers"]["forces"] = {"mean": torch.tensor(0.5), "rmsd": torch.tensor(9.0)}
    torch.save(state, tmp_path / "pretrained.pt")
    again = make_trainer(config, tmp_path)
    again.load_checkpoint(str(tmp_path / "pretrained.pt"))
    assert again.normalizers["forces"].rmsd == again.normalizers["energy"].rmsd
    assert again.normalizers["forces"].mean == 0
