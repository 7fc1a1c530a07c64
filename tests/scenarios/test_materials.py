"""Crystals with stress: OMat24's form of a config, fairchem's checkpoints of it, the calculator."""

import copy
import logging
import re

import numpy as np
import pytest
import torch
from ase.stress import voigt_6_to_full_3x3_stress
from fairchem.core.common.relaxation.ase_utils import OCPCalculator

from dens_ocp.models.parameter_names import translated
from tests.conftest import SMALL_EQUIFORMER, build_model
from tests.crystals import crystal, write_crystals
from tests.runs import dens_ocp, logged, make_trainer, run, write_config
from tests.settings.test_hydra_model import PUBLISHED, SMALL, STRESS, hydra
from tests.tools.export import stock

PARTS = {"stress_isotropic": {"irrep_dim": 0}, "stress_anisotropic": {"irrep_dim": 2}}
HEADS = {"stress": {"module": "rank2_symmetric_head", **STRESS}}
SMALL_MODEL = {**SMALL_EQUIFORMER, "otf_graph": True}
# fairchem's configs/omat24/mptrj/eqV2_31M_mptrj.yml and configs/omat24/all
WITHOUT_DENS = (
    {"model": "equiformer_v2_backbone", **SMALL},
    {
        "energy": {"module": "equiformer_v2_energy_head"},
        "forces": {"module": "equiformer_v2_force_head"},
        **HEADS,
    },
)
LABELS = {"r_energy": True, "r_forces": True, "r_stress": True}


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    return write_crystals(tmp_path_factory.mktemp("crystals"))


def recipe(folder, trainer="dens", **optim):
    """fairchem's eqV2_31M_dens_mptrj.yml with a small model."""
    params = {"prob": 0.5, "fixed_noise_std": True, "std": 0.1, "num_steps": 50}
    if trainer == "dens":  # words in the published file; its own trainer cannot read them
        params |= {"std_low": "None", "std_high": "None"}
    data = {"format": "ase_db", "a2g_args": LABELS}
    fit = {"batch_size": 4, "num_batches": 10}
    fitted = {"forces": {"mean": 0.0}, **{each: {} for each in PARTS}}
    return {
        "trainer": trainer,
        "dataset": {
            "train": {
                **data,
                "src": [str(folder / "train")],
                "transforms": {
                    "decompose_tensor": {"tensor": "stress", "rank": 2, "decomposition": PARTS},
                    "normalizer": {"fit": {"targets": fitted, **fit}},
                    "element_references": {"fit": {"targets": ["energy"], **fit}},
                },
            },
            "val": {**data, "src": [str(folder / "val")]},
        },
        "logger": "tensorboard",
        "outputs": {
            "energy": {"level": "system", "property": "energy"},
            "forces": {
                "level": "atom", "property": "forces", "train_on_free_atoms": True,
                "eval_on_free_atoms": True,
            },
            "stress": {"level": "system", "property": "stress", "decomposition": PARTS},
        },
        "loss_functions": [
            {"energy": {"fn": "per_atom_mae", "coefficient": 5}},
            {"forces": {"fn": "l2mae", "coefficient": 20}},
            {"stress_isotropic": {"fn": "mae", "coefficient": 5}},
            {"stress_anisotropic": {"fn": "mae", "reduction": "mean", "coefficient": 5}},
        ],
        "evaluation_metrics": {
            "primary_metric": "energy_mae",
            "metrics": {
                "energy": ["mae", "per_atom_mae"], "forces": ["mae"], "stress": ["mae"],
                **{each: ["mae"] for each in PARTS},
            },
        },
        "optim": {
            "batch_size": 4, "eval_batch_size": 4, "num_workers": 0, "lr_initial": 2e-3,
            "optimizer": "AdamW", "optimizer_params": {"weight_decay": 0.001},
            "scheduler": "LambdaLR",
            "scheduler_params": {
                "lambda_type": "cosine", "warmup_factor": 0.2, "warmup_epochs": 0.5,
                "lr_min_factor": 0.01,
            },
            "max_epochs": 2, "clip_grad_norm": 100, "ema_decay": 0.99,
            "use_denoising_pos": True, "denoising_pos_params": params,
            "denoising_pos_coefficient": 10, **optim,
        },
        "model": hydra(*PUBLISHED["use_denoising in the heads"]),
    }  # fmt: skip


def metrics_of(done):
    """The line with all metrics of a validation."""
    found = re.findall(r"(\w+_mae): ([\d.]+)", done.stdout + done.stderr)
    assert found, done.stderr[-3000:]
    return {name: float(value) for name, value in found}


def test_the_published_recipe(crystals, tmp_path):
    """Trains with DeNS, validates, predicts in float32, and the calculator has the stress."""
    config = recipe(
        crystals, denoising_pos_params={"prob": 1.0, "fixed_noise_std": True, "std": 0.1}
    )
    path = write_config(tmp_path / "c.yml", config)
    run("train", path, "--timestamp-id", "ours", cwd=tmp_path)
    steps = logged(tmp_path, "ours")
    assert len(steps) == 6 and all(line["dens_structures"] == 1 for line in steps)
    assert all(np.isfinite(line["loss_noise"]) for line in steps)
    # use_denoising: False of the stress head: no loss where every structure is a DeNS structure
    assert all(line["loss_stress_isotropic"] == 0 for line in steps)
    assert all(line["loss_energy"] > 0 for line in steps)
    checkpoint = tmp_path / "checkpoints" / "ours" / "checkpoint.pt"
    options = (
        "--checkpoint",
        checkpoint,
        "--dataset.train=None",
        "--task.prediction_dtype=float32",
    )
    assert {"stress_mae", "energy_per_atom_mae"} <= set(
        metrics_of(run("validate", path, *options, cwd=tmp_path))
    )
    test = f"--dataset.test.src={crystals / 'val'}"
    run("predict", path, *options, test, "--dataset.test.format=ase_db", cwd=tmp_path)
    (file,) = tmp_path.glob("results/*/*.npz")
    predicted = np.load(file)["stress"].reshape(-1, 3, 3)
    assert predicted.shape == (6, 3, 3) and predicted.dtype == np.float32
    assert np.allclose(predicted, predicted.transpose(0, 2, 1), atol=1e-6)
    assert np.abs(predicted).max() > 1e-4
    calculator = OCPCalculator(checkpoint_path=checkpoint, cpu=True, seed=0)
    for seed, whole in zip(range(12, 18), predicted, strict=True):
        atoms = crystal(seed)
        atoms.calc = calculator
        voigt = atoms.get_stress()
        assert np.allclose(
            voigt_6_to_full_3x3_stress(voigt), whole, atol=0.02 * np.abs(whole).max()
        )


@pytest.fixture(scope="module")
def stock_folder(crystals, tmp_path_factory):
    """Runs of fairchem's trainers: ``dens`` of a model with DeNS, ``plain`` of one without."""
    folder = tmp_path_factory.mktemp("stock")
    plain = recipe(crystals, "equiformerv2_forces") | {"model": hydra(*WITHOUT_DENS)}
    plain["optim"] |= {"use_denoising_pos": False}
    for name, config in (("dens", recipe(crystals, "equiformerv2_dens")), ("plain", plain)):
        path = write_config(folder / f"{name}.yml", config)
        run("train", path, "--timestamp-id", name, cwd=folder)
    return folder


def checkpoint_of(folder, name):
    return folder / "checkpoints" / name / "checkpoint.pt"


def test_a_checkpoint_of_fairchems_own_trainer(crystals, stock_folder, tmp_path):
    """Weights and averaged ones of a hydra model with DeNS and stress: validation has the same
    numbers, the calculator the same stress, and a run with DeNS starts from them."""
    theirs, checkpoint = stock_folder / "dens.yml", checkpoint_of(stock_folder, "dens")
    ours = write_config(tmp_path / "ours.yml", recipe(crystals))
    expected = metrics_of(run("validate", theirs, "--checkpoint", checkpoint, cwd=tmp_path))
    found = metrics_of(run("validate", ours, "--checkpoint", checkpoint, cwd=tmp_path))
    assert expected["stress_mae"] > 0
    for name, value in expected.items():  # edge frames are drawn at random, in theirs and ours
        assert found[name] == pytest.approx(value, rel=0.02, abs=2e-4), name
    atoms = crystal(20)
    atoms.calc = OCPCalculator(checkpoint_path=checkpoint, trainer="dens", cpu=True, seed=0)
    assert atoms.calc.trainer.config["model"]["name"] == "equiformer_v2_dens"
    assert atoms.get_stress().shape == (6,) and np.isfinite(atoms.get_stress()).all()
    again = run(
        "train", ours, "--checkpoint", checkpoint, "--timestamp-id", "again", cwd=tmp_path
    )  # fmt: skip
    assert "start of fine-tuning with DeNS, at step 0" in again.stdout + again.stderr
    assert len(logged(tmp_path, "again")) == 6


def test_fine_tuning_from_a_model_without_dens(crystals, stock_folder, tmp_path, caplog):
    """The layout of eqV2_31M_mptrj.pt and OMat24's eqV2_*_omat.pt, into fairchem's recipe and into
    ours: what both have is equal to the averaged weights, normalizers and element references are
    the checkpoint's, and only the parts of DeNS are new, which a message names."""
    checkpoint = checkpoint_of(stock_folder, "plain")
    start = torch.load(checkpoint, map_location="cpu", weights_only=False)
    names = [name.removeprefix("module.") for name in start["state_dict"]]
    assert {name.split(".")[0] for name in names} == {"backbone", "output_heads"}
    config = recipe(crystals)
    plain = build_model(copy.deepcopy(hydra(*WITHOUT_DENS)))
    trainable = [name for name, each in plain.named_parameters() if each.requires_grad]
    averaged = dict(zip(trainable, start["ema"]["shadow_params"], strict=True))
    assert any(not torch.equal(averaged[name], start["state_dict"][f"module.{name}"])
               for name in trainable)  # fmt: skip
    other = copy.deepcopy(config)  # what is fitted to other data differs
    other["dataset"]["train"]["src"] = other["dataset"]["val"]["src"]
    trainer = make_trainer(other, tmp_path)
    references = start["elementrefs"]["energy"]["element_references"]
    assert not torch.equal(trainer.elementrefs["energy"].element_references, references)
    fresh = {name: each.clone() for name, each in trainer._unwrapped_model.state_dict().items()}
    with caplog.at_level(logging.WARNING):
        trainer.load_checkpoint(str(checkpoint))
    loaded = trainer._unwrapped_model.state_dict()
    shared = {translated(name, ["stress"]): name for name in trainable}
    for ours, theirs in shared.items():
        assert torch.equal(loaded[ours], averaged[theirs]), ours
    new = {name for name, each in trainer._unwrapped_model.named_parameters()
           if each.requires_grad} - set(shared)  # fmt: skip
    assert {name.split(".")[0] for name in new} == {"force_embedding", "noise_head"}
    assert all(torch.equal(loaded[name], fresh[name]) for name in new)
    (line,) = [each for each in caplog.messages if "no DeNS parameters" in each]
    assert "fine-tuning with DeNS, at step 0; initialised: force_embedding, noise_head" in line
    assert {"forces", *PARTS} <= set(start["normalizers"])
    for target, state in start["normalizers"].items():
        assert float(trainer.normalizers[target].rmsd) == pytest.approx(float(state["rmsd"]))
    assert torch.equal(trainer.elementrefs["energy"].element_references, references)
    assert trainer.step == 0
    path = write_config(tmp_path / "c.yml", config | {"model": {**SMALL_MODEL, "heads": HEADS}})
    run("train", path, "--checkpoint", checkpoint, "--timestamp-id", "a", cwd=tmp_path)
    lines = logged(tmp_path, "a")
    assert len(lines) == 6 and any(line["loss_noise"] for line in lines)


@pytest.mark.parametrize(
    ("heads", "words"),
    [
        ({}, ["has a head 'stress'", "model.heads: {stress: {module: rank2_symmetric_head"]),
        (
            {"stress": HEADS["stress"], "dielectric": {**HEADS["stress"], "output_name": "d"}},
            ["model.heads.dielectric", "has no such head", "it has stress"],
        ),
    ],
    ids=["not asked for", "not there"],
)
def test_heads_that_do_not_fit(crystals, stock_folder, tmp_path, heads, words):
    config = recipe(crystals) | {"model": {**SMALL_MODEL, "heads": heads}}
    path = write_config(tmp_path / "c.yml", config)
    checkpoint = checkpoint_of(stock_folder, "plain")
    done = run("validate", path, "--checkpoint", checkpoint, cwd=tmp_path, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    (line,) = [each for each in done.stderr.splitlines() if each.startswith("error: ")]
    assert all(word in line for word in [*words, str(checkpoint)]), line


def test_export(crystals, stock_folder, tmp_path):
    """A model with DeNS and stress validates with stock fairchem, which has no dens_ocp."""
    config = recipe(crystals)
    ours = write_config(tmp_path / "ours.yml", config)
    trainer = make_trainer(config, tmp_path, is_debug=False)
    trainer.load_checkpoint(str(checkpoint_of(stock_folder, "dens")))
    trainer.ema.update()
    checkpoint, out = trainer.save(training_state=True), tmp_path / "exported.pt"
    done = dens_ocp("export", checkpoint, out, cwd=tmp_path)
    assert "model        hydra" in done.stdout and "stress_anisotropic" in done.stdout
    expected = metrics_of(run("validate", ours, "--checkpoint", checkpoint, cwd=tmp_path))
    source = f"--dataset.val.src={crystals / 'val'}"
    log = stock.fairchem("validate", out.with_suffix(".yml"), out, source, cwd=tmp_path)
    found = {name: float(value) for name, value in re.findall(r"(\w+_mae): ([\d.]+)", log)}
    assert expected["stress_mae"] > 0
    for name, value in expected.items():  # edge frames are drawn at random
        assert found[name] == pytest.approx(value, rel=0.02, abs=2e-4), name
