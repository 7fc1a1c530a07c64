"""The trainer gets the numbers that a config means, and the schedules that it names."""

import copy
import logging

import numpy as np
import pytest
import torch

from dens_ocp.errors import DensError
from tests.conftest import SMALL_ESCN
from tests.runs import make_trainer, small_config, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def as_words(value):
    """Every number and flag as the string that YAML 1.1 may make of it."""
    if isinstance(value, dict):
        return {name: as_words(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_words(each) for each in value]
    if isinstance(value, float):
        return f"{value:e}".replace("e-0", "e-").replace("e+00", "e0")
    return str(value) if isinstance(value, (bool, int)) else value


def test_a_config_of_strings_trains_as_one_of_numbers(data, tmp_path):
    plain = small_config(data, optimizer_params={"weight_decay": 0.001, "amsgrad": True})
    words = as_words(copy.deepcopy(plain))
    assert words["optim"]["lr_initial"] == "1.000000e-3"
    trainers = [make_trainer(each, tmp_path, is_debug=True) for each in (plain, words)]
    for trainer in trainers:
        trainer.train(disable_eval_tqdm=True)
    states = [trainer.model.state_dict() for trainer in trainers]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    optim = [trainer.config["optim"] | {"dens": trainers[0].dens} for trainer in trainers]
    assert optim[0] == optim[1] and trainers[1].dens == trainers[0].dens
    assert trainers[0].sums.fetch() == trainers[1].sums.fetch() != {}


def test_a_normalizer_of_integers_takes_a_checkpoints_numbers(data, tmp_path):
    config = small_config(data)
    config["dataset"]["train"]["transforms"]["normalizer"]["energy"] = {"mean": 0, "stdev": 2}
    normalizer = make_trainer(config, tmp_path).normalizers["energy"]
    normalizer.load_state_dict({"mean": torch.tensor(-0.755), "rmsd": torch.tensor(2.887)})
    # an integer buffer would hold 0 and 2
    assert normalizer.mean.item() == pytest.approx(-0.755)
    assert normalizer.rmsd.item() == pytest.approx(2.887)


def rates(trainer, steps):
    """Learning rates of the first ``steps`` steps."""
    found = []
    for _ in range(steps):
        found.append(trainer.scheduler.get_lr())
        trainer.optimizer.step()
        trainer.scheduler.step()
    return found


def escn(data, **optim):
    """A config with the options of fairchem's published ones for eSCN: no ``scheduler_params``."""
    config = small_config(data, model=SMALL_ESCN, lr_initial=0.0008, **optim)
    for name in ("scheduler", "scheduler_params"):
        if name not in optim:
            del config["optim"][name]
    config["optim"] |= {"optimizer_params": {"amsgrad": True}, "clip_grad_norm": 20}
    return config


@pytest.mark.parametrize(
    ("optim", "expected"),
    [
        ({"lr_gamma": 0.3, "lr_milestones": [145833, 187500], "warmup_steps": 2,
          "warmup_factor": 0.2}, [0.2, 0.6, 1, 1]),
        ({"lr_gamma": "3e-1", "lr_milestones": ["145833"], "warmup_steps": "2",
          "warmup_factor": "2e-1"}, [0.2, 0.6, 1, 1]),
        ({"lr_gamma": 0.3, "lr_milestones": [145833], "warmup_steps": 0, "warmup_factor": 0.2},
         [1, 1, 1, 1]),
        ({"lr_gamma": 0.3, "lr_milestones": [145833], "warmup_steps": -1}, [1, 1, 1, 1]),
        ({}, [1, 1, 1, 1]),
        ({"scheduler": "Null"}, [1, 1, 1, 1]),
        ({"scheduler": None}, [1, 1, 1, 1]),
        ({"scheduler": "Null", "scheduler_params": {}}, [1, 1, 1, 1]),
        ({"scheduler": "CosineAnnealingLR", "T_max": 4},
         [(1 + np.cos(np.pi * step / 4)) / 2 for step in range(4)]),
        ({"scheduler": "CosineAnnealingLR", "scheduler_params": {"T_max": "4e0"}},
         [(1 + np.cos(np.pi * step / 4)) / 2 for step in range(4)]),
        ({"scheduler": "ExponentialLR", "gamma": "5e-1"}, [1, 0.5, 0.25, 0.125]),
    ],
)  # fmt: skip
def test_schedules_of_published_escn_configs(data, tmp_path, optim, expected):
    trainer = make_trainer(escn(data, **optim), tmp_path)
    assert trainer.clip_grad_norm == 20 and trainer.ema_decay == 0.9
    assert rates(trainer, 4) == pytest.approx([0.0008 * factor for factor in expected])


def test_a_constant_rate_is_said(data, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        make_trainer(escn(data), tmp_path)
    assert "the learning rate is constant, 0.0008" in caplog.text


@pytest.mark.parametrize(
    "optim",
    [
        {},
        {"lr_gamma": 0.3, "lr_milestones": [101], "warmup_steps": 2, "warmup_factor": 0.2},
        {"scheduler": "Null"},
        {"scheduler": "ReduceLROnPlateau", "mode": "min", "factor": "8e-1", "patience": 3},
    ],
)
def test_escn_trains_and_resumes_without_scheduler_params(data, tmp_path, optim):
    config = escn(data, dens=None, **optim)
    config["optim"] |= {"dens": {"p": 0.5}, "max_epochs": 1}
    run = {"is_debug": False, "timestamp_id": "run"}
    trainer = make_trainer(config, tmp_path, **run)
    trainer.train(disable_eval_tqdm=True)
    assert trainer.step == 4
    rate = trainer.scheduler.get_lr()
    trainer.checkpoints._lock.close()
    config["optim"]["max_epochs"] = 2
    again = make_trainer(config, tmp_path, is_debug=True)
    again.load_checkpoint(str(tmp_path / "checkpoints/run/checkpoint.pt"))
    assert again.step == 4 and again.scheduler.get_lr() == pytest.approx(rate)
    again.train(disable_eval_tqdm=True)
    assert again.step == 8


def test_reduce_on_plateau_needs_a_validation(data, tmp_path):
    config = escn(data, scheduler="ReduceLROnPlateau", factor=0.8)
    config["dataset"]["val"] = None
    with pytest.raises(DensError, match="ReduceLROnPlateau.*dataset.val.*src"):
        make_trainer(config, tmp_path)


@pytest.mark.parametrize("section", ["optim", "dataset", "task", "outputs", "logger", "model"])
def test_the_trainer_refuses_misspelt_names(data, tmp_path, section):
    config = small_config(data)
    config["logger"] = {"name": "tensorboard"}
    target = config["outputs"]["energy"] if section == "outputs" else config[section]
    names = {"optim": "batchsize", "dataset": "valid", "task": "write_po", "outputs": "leve",
             "logger": "grop", "model": "max_radiu"}  # fmt: skip
    target[names[section]] = {}
    with pytest.raises(DensError, match=rf"{names[section]}.*did you mean"):
        make_trainer(config, tmp_path)


def test_without_training_data_no_schedule_is_asked_for(data, tmp_path):
    config = small_config(data)
    config["dataset"]["train"].pop("src")
    config["optim"] = {"batch_size": "2"}
    trainer = make_trainer(config, tmp_path)
    assert len(trainer.val_loader) == 3


# ---- load balancing ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["atoms", True, False, None])
@pytest.mark.parametrize("form", ["lmdb", "ase_db"])
def test_one_rank_needs_no_sizes(tmp_path, mode, form):
    import ase.db
    from ase.build import bulk
    from ase.calculators.emt import EMT

    data = write_data(tmp_path / "data")
    for path in data.rglob("metadata.npz"):
        path.unlink()
    config = small_config(data, load_balancing=mode)
    if form == "ase_db":
        with ase.db.connect(tmp_path / "x.db") as database:
            for seed in range(6):
                atoms = bulk("Cu", cubic=True)
                atoms.rattle(0.05, seed=seed)
                atoms.calc = EMT()
                atoms.get_forces()
                database.write(atoms)
        arguments = {"r_energy": True, "r_forces": True}
        config["dataset"]["train"] |= {
            "format": "ase_db", "src": str(tmp_path / "x.db"), "a2g_args": arguments,
        }  # fmt: skip
        config["dataset"]["train"].pop("key_mapping")
        config["dataset"]["val"] = {"src": str(tmp_path / "x.db")}
    trainer = make_trainer(config, tmp_path)
    assert sum(batch.num_graphs for batch in trainer.train_loader) == (
        6 if form == "ase_db" else 12
    )
    assert not list(tmp_path.rglob("metadata.npz"))


@pytest.mark.parametrize("wrong", [np.arange(1, 9), np.ones(12)])
def test_sizes_of_other_records_are_refused(data, tmp_path, wrong):
    path = data / "train/metadata.npz"
    np.savez(path, natoms=wrong)
    try:
        with pytest.raises(DensError, match="metadata.npz.*make_lmdb_sizes.*remove it"):
            make_trainer(small_config(data), tmp_path)
    finally:
        path.unlink()
