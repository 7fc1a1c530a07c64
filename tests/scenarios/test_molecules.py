"""Equiformer on molecules through the real CLI: an MD17 recipe with a small model."""

import re

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from ase.md.verlet import VelocityVerlet

from dens_ocp.errors import DensError
from dens_ocp.models.checkpoint_states import fit
from tests.conftest import ROOT
from tests.molecules import SMALL_EQUIFORMER_L2, write_molecules
from tests.runs import dens_ocp, logged, make_trainer, run
from tests.scenarios.test_training import losses, state
from tests.test_configs import config_of

RECIPE = ROOT / "configs/md17/ethanol/l2_dens.yml"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("molecules")
    for seed, (split, count) in enumerate((("train", 16), ("val", 5), ("test", 6))):
        write_molecules(folder / split, count, seed)
    return folder


def options(data, **others) -> list[str]:
    """Command line that makes the recipe small."""
    model = {name: value for name, value in SMALL_EQUIFORMER_L2.items() if name != "name"}
    values = {
        **{f"dataset.{split}.src": data / split for split in ("train", "val", "test")},
        **{f"model.{name}": value for name, value in model.items()},
        "model.irreps_pre_attn": model["irreps_node_embedding"],
        "optim.num_workers": 0, "optim.max_epochs": 3, "optim.eval_every": 2,
        "optim.dens.p": 0.5, "logger": "tensorboard", **others,
    }  # fmt: skip
    return [f"--{name}={value}".replace(" ", "") for name, value in values.items()]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    done = run("train", RECIPE, *options(data), "--timestamp-id", "first", cwd=folder)
    return folder, done.stdout


def test_training(trained):
    folder, log = trained
    assert len(losses(log)) == 6
    for name in ("loss_noise", "dens_noise_mae", "dens_forces_mae", "forces_mae"):
        assert any(name in line for line in logged(folder))
    assert "LMDB does not contain edge index" not in log
    checkpoint = state(folder)
    energy, forces = (checkpoint["normalizers"][target] for target in ("energy", "forces"))
    assert forces["rmsd"] == energy["rmsd"] and forces["mean"] == 0


def test_validation_and_prediction(trained, data, tmp_path):
    folder, log = trained
    best = folder / "checkpoints" / "first" / "best_checkpoint.pt"
    done = run("validate", RECIPE, *options(data), "--checkpoint", best, cwd=folder).stdout
    (error,) = re.findall(r"forces_mae: (\S+),", done.split("Evaluating on val")[-1])
    errors = [line["forces_mae"] for line in logged(folder, "first", "val")]
    assert float(error) == pytest.approx(min(errors), abs=1e-4)
    run("predict", RECIPE, *options(data), "--checkpoint", best, cwd=tmp_path)
    (path,) = tmp_path.glob("results/*/*_predictions.npz")
    with np.load(path) as predictions:
        assert predictions["energy"].dtype == np.float32 and len(predictions["energy"]) == 6
        assert predictions["forces"].shape == (6 * 9, 3)
        assert np.isfinite(predictions["forces"]).all()


def test_calculator_conserves_energy(trained):
    """fairchem's OCPCalculator, with nothing but the checkpoint: forces and energies in eV belong
    together, which they would not with two normalizers."""
    from fairchem.core import OCPCalculator

    folder, _ = trained
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    path = folder / "checkpoints" / "first" / "checkpoint.pt"
    atoms.calc = OCPCalculator(checkpoint_path=path, cpu=True, seed=0)
    forces = atoms.get_forces()
    direction = np.random.default_rng(0).normal(size=forces.shape)
    energies, start = [], atoms.positions.copy()
    for step in (2e-3, -2e-3):
        atoms.positions = start + step * direction
        energies.append(atoms.get_potential_energy())
    slope = (energies[0] - energies[1]) / 4e-3
    assert -(forces * direction).sum() == pytest.approx(slope, rel=0.02)

    atoms.positions = start
    atoms.set_momenta(np.zeros_like(start))
    total = atoms.get_total_energy()
    VelocityVerlet(atoms, 0.5 * units.fs).run(20)
    assert atoms.get_kinetic_energy() > 1e-4
    assert abs(atoms.get_total_energy() - total) < 0.1 * atoms.get_kinetic_energy()


@pytest.fixture(scope="module")
def trainer_of(data, tmp_path_factory):
    """The trainer of the recipe, in this process; arguments are options of the command line."""

    def build(**changes):
        config = config_of(RECIPE, *options(data, **changes))
        return make_trainer(config, tmp_path_factory.mktemp("run"))

    return build


def step_of(trainer):
    """Loss and gradients of the first batch."""
    trainer.model.train()
    trainer.step = 1
    torch.manual_seed(0)
    batch = next(iter(trainer.train_loader))
    loss = trainer._compute_loss(trainer._forward(batch), batch)
    loss.backward()
    return loss, {name: p.grad for name, p in trainer._unwrapped_model.named_parameters()}


def test_p_0_is_training_without_dens(trainer_of):
    nobody, (off, other) = (
        step_of(trainer_of(**{"optim.dens.p": 0})),
        step_of(trainer_of(**{"optim.dens.enabled": False})),
    )
    assert torch.equal(nobody[0], off)
    for name, gradient in nobody[1].items():
        assert torch.equal(gradient, other[name]), name
        if name.startswith("noise_head"):
            assert not gradient.any()


@pytest.mark.slow
def test_two_ranks_learn_what_one_learns_from_the_union_batch(data, trainer_of, tmp_path):
    """gloo, DDP, which asks for a gradient of each parameter in each step. Without corruption,
    which depends on the rank; SGD, as Adam blows rounding up."""
    changes = {
        "optim.dens.p": 0, "optim.optimizer": "SGD", "optim.optimizer_params": "{}",
        "optim.lr_initial": 1e-3, "optim.max_epochs": 1, "optim.eval_every": 100,
    }  # fmt: skip
    alone = trainer_of(**changes, **{"optim.batch_size": 8, "dataset.test.src": ""})
    start = {name: value.clone() for name, value in alone.model.state_dict().items()}
    alone.train(disable_eval_tqdm=True)
    run(
        "train", RECIPE, *options(data, **changes, **{"optim.batch_size": 4}), "--num-gpus", "2",
        cwd=tmp_path,
    )  # fmt: skip
    together, moved = state(tmp_path)["state_dict"], 0.0
    for name, value in alone.model.state_dict().items():
        assert torch.allclose(value, together[f"module.{name}"], atol=1e-5), name
        moved = max(moved, (value - start[name]).abs().max().item())
    assert moved > 1e-4, "nothing was learned"


def test_forces_have_the_scale_of_the_energy_whatever_the_config_says(trainer_of, caplog):
    fitted = trainer_of().normalizers["energy"].rmsd
    other = {f"dataset.train.transforms.normalizer.forces.{k}": v
             for k, v in (("mean", 0.5), ("stdev", 7.0))}  # fmt: skip
    trainer = trainer_of(**other)
    assert trainer.normalizers["forces"].rmsd == fitted
    assert trainer.normalizers["forces"].mean == 0
    assert "is not used" in caplog.text


def test_dens_without_a_noise_head_or_a_scale(trainer_of, data, tmp_path):
    with pytest.raises(DensError, match="use_noise_head: False has no noise head"):
        trainer_of(**{"model.use_noise_head": False})
    config = config_of(RECIPE, *options(data))
    del config["dataset"]["train"]["transforms"]
    with pytest.raises(DensError, match="normalizer.energy is missing"):
        make_trainer(config, tmp_path)


@pytest.mark.parametrize("enabled", [False, True])
def test_a_checkpoint_without_dens_is_a_start(trainer_of, tmp_path, enabled):
    """Weights of a model of the same size without noise head and force encoding."""
    plain = trainer_of(**{"model.use_noise_head": False, "optim.dens.enabled": False})
    weights = plain.model.state_dict()
    trainer = trainer_of(**{"optim.dens.enabled": enabled})
    state = fit(trainer._unwrapped_model, weights, "plain.pt")
    assert {name.split(".")[0] for name in state.initialised} == {"force_embedding", "noise_head"}


@pytest.mark.slow
def test_doctor_reads_molecules(data, tmp_path):
    lines = dens_ocp("doctor", RECIPE, *options(data), cwd=tmp_path).stdout.splitlines()
    for subject in ("normalizer.energy", "normalizer.forces", "model", "optim.dens"):
        (line,) = (line for line in lines if line.split()[1:2] == [subject])
        assert line.startswith("ok")
    for split in ("train", "val", "test"):
        assert any(f"ok       dataset.{split} " in line for line in lines)


def test_export_says_that_fairchem_has_no_equiformer(trained, tmp_path):
    path = trained[0] / "checkpoints" / "first" / "checkpoint.pt"
    done = dens_ocp("export", path, tmp_path / "e.pt", cwd=tmp_path, check=False)
    assert done.returncode != 0 and "fairchem has no model of this kind" in done.stderr
