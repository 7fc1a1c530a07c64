"""The recipes in configs/md17: Tables 4, 5, 6 and 9 of the paper, composed of few files."""

import re

import pytest
from ase import units

from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from tests.conftest import build_model
from tests.molecules import SMALL_EQUIFORMER_L2, write_molecules
from tests.runs import make_trainer
from tests.test_configs import CONFIGS, config_of, option

MD17 = CONFIGS / "md17"
# Table 9: lambda_E, lambda_F, p, sigma
MOLECULES = {
    "aspirin": (1, 80, 0.25, 0.05),
    "benzene": (1, 80, 0.25, 0.05),
    "ethanol": (1, 80, 0.25, 0.05),
    "malonaldehyde": (1, 100, 0.25, 0.05),
    "naphthalene": (2, 20, 0.25, 0.05),
    "salicylic_acid": (1, 80, 0.25, 0.05),
    "toluene": (1, 80, 0.125, 0.025),
    "uracil": (1, 20, 0.25, 0.05),
}
# the authors' scripts of Equiformer without DeNS have other weights here
WITHOUT_DENS = {
    ("naphthalene", "l2"): (1, 20),
    **{
        (molecule, "l3"): (1, 100)
        for molecule in ("aspirin", "naphthalene", "salicylic_acid", "toluene", "uracil")
    },
}
SEGNN = {"model.use_attention": False, "model.norm_layer": None, "model.weight_init": "uniform"}
# settings: (options, changes of DeNS; None: without DeNS)
SETTINGS = {
    "l2": ({}, None),
    "l3": ({}, None),
    "l2_dens": ({}, {}),
    "l3_dens": ({}, {}),
    "l2_dens_no_force_encoding": ({"model.use_force_encoding": False}, {}),
    "l2_dens_no_energy": ({}, {"energy": False}),
    "l2_dens_full_corruption": ({}, {"r": 1}),
    "l2_no_attention": ({"model.use_attention": False}, None),
    "l2_no_attention_dens": ({"model.use_attention": False}, {}),
    "l2_no_attention_no_norm": (SEGNN, None),
    "l2_no_attention_no_norm_dens": (SEGNN, {}),
}
# number of parameters: Table 4; of the variants counted here
PARAMETERS = {
    "l2": 3_496_001,
    "l3": 5_500_865,
    "l2_dens": 4_000_577,
    "l3_dens": 6_354_241,
}
BOTH = [(molecule, settings) for molecule in MOLECULES for settings in SETTINGS]


def optimizer(molecule: str, settings: str) -> dict:
    """Batch, epochs and learning rate of the authors' scripts."""
    if settings.startswith("l2") or (molecule, settings) == ("benzene", "l3_dens"):
        found = {"batch_size": 8, "max_epochs": 1500, "lr_initial": 5e-4}
    else:
        found = {"batch_size": 5, "max_epochs": 2000, "lr_initial": 2e-4}
    if molecule == "benzene":
        found["lr_initial"] = 1e-4
    return found


def test_every_recipe_is_tested():
    found = {
        (path.parent.name, path.stem)
        for path in MD17.rglob("*.yml")
        if path.parent.name not in ("md17", "settings", "molecules")
    }
    assert found == set(BOTH)


@pytest.mark.parametrize(("molecule", "settings"), BOTH)
def test_settings(molecule, settings):
    config = config_of(MD17 / molecule / f"{settings}.yml")
    lambda_e, lambda_f, p, sigma = MOLECULES[molecule]
    weights = WITHOUT_DENS.get((molecule, settings), (lambda_e, lambda_f))
    assert (option(config, "lambda_E"), option(config, "lambda_F")) == weights
    assert [next(iter(loss.values()))["fn"] for loss in config["loss_functions"]] == [
        "mae",
        "l2mae",
    ]
    changed, dens = SETTINGS[settings]
    model = {"model.use_attention": True, "model.norm_layer": "layer", **changed}
    model |= {"model.use_force_encoding": True, **changed, "model.use_noise_head": dens is not None}
    assert {name: option(config, name) for name in model} == model
    kcal_per_mol = units.kcal / units.mol  # in eV; the unit of the authors' forces
    assert config["model"]["force_encoding_scale"] == pytest.approx(1 / kcal_per_mol, rel=1e-7)
    expected = DeNSConfig(
        enabled=dens is not None, p=p, sigma=sigma, r=0.25, coefficient=5,
        coefficient_decay="linear", denominator="separate",
    ).model_copy(update=dens or {})  # fmt: skip
    assert parse_dens_config(config["optim"]) == expected
    wanted = optimizer(molecule, settings)
    assert {name: config["optim"][name] for name in wanted} == wanted
    assert config["optim"]["eval_batch_size"] == wanted["batch_size"]
    rate = wanted["lr_initial"]
    for name in ("warmup_factor", "lr_min_factor"):
        assert rate * config["optim"]["scheduler_params"][name] == pytest.approx(1e-6)
    for split in ("train", "val", "test"):
        section = config["dataset"][split]
        assert (section["format"], section["src"]) == ("lmdb", f"data/md17/{molecule}/{split}")
    steps_of_an_epoch = -(-950 // wanted["batch_size"])
    assert config["optim"]["eval_every"] == steps_of_an_epoch  # as the authors' code validates
    assert config["optim"]["checkpoint_every"] == 10 * steps_of_an_epoch


@pytest.mark.parametrize(("molecule", "settings"), BOTH)
def test_header(molecule, settings):
    text = (MD17 / molecule / f"{settings}.yml").read_text()
    assert f"--config-yml configs/md17/{molecule}/{settings}.yml" in text
    table = 4 if settings in PARAMETERS else 6 if "dens_" in settings else 5
    assert re.match(rf"# Expected on the test set: energy [\d.]+ meV, .* Table {table}", text)


def test_expected_results_are_the_papers(shared):
    """Forces of Tables 4, 5 and 6 in the headers: those of each row, in the paper's text."""
    text = (shared / "paper_full.md").read_text().replace("<b>", "").replace("</b>", "")
    for settings in SETTINGS:
        figures = []
        for molecule in MOLECULES:
            header = (MD17 / molecule / f"{settings}.yml").read_text()
            figures += re.match(r".* energy (\S+) meV, forces (\S+) meV/A", header).groups()
        assert "\t".join(figures) in text, settings


@pytest.mark.parametrize("settings", SETTINGS)
def test_model_builds(settings):
    model = build_model(config_of(MD17 / "aspirin" / f"{settings}.yml")["model"])
    number = sum(parameter.numel() for parameter in model.parameters())
    if settings in PARAMETERS:
        assert number == PARAMETERS[settings]
    elif settings.startswith("l2_dens"):
        assert number == PARAMETERS["l2_dens"]
    else:
        assert number < PARAMETERS["l2_dens" if settings.endswith("dens") else "l2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("md17")
    write_molecules(folder / "train", 16)
    write_molecules(folder / "val", 4, seed=1)
    return folder


@pytest.mark.parametrize("settings", SETTINGS)
def test_trainer_does_what_the_recipe_says(settings, data, tmp_path):
    config = config_of(MD17 / "ethanol" / f"{settings}.yml")
    for split in ("train", "val", "test"):
        config["dataset"][split]["src"] = str(data / ("train" if split == "train" else "val"))
    small = dict(SMALL_EQUIFORMER_L2)
    if not config["model"]["use_noise_head"]:
        small["irreps_feature"] = "16x0e"
    del config["model"]["irreps_pre_attn"]
    config["model"] |= small
    config["optim"]["num_workers"] = 0
    trainer = make_trainer(config, tmp_path)
    energies = [record.energy for record in trainer.train_dataset]  # y in the files
    mean = sum(energies) / 16
    spread = (sum((e - mean) ** 2 for e in energies) / 15) ** 0.5
    for target, center in (("energy", mean), ("forces", 0.0)):
        assert trainer.normalizers[target].mean.item() == pytest.approx(center, abs=1e-4)
        assert trainer.normalizers[target].rmsd.item() == pytest.approx(spread, rel=1e-4)
    steps = len(trainer.train_loader)
    factor = trainer.scheduler.scheduler.lr_lambdas[0]
    epochs = config["optim"]["max_epochs"]
    rate = config["optim"]["lr_initial"]
    assert [rate * factor(epoch * steps) for epoch in (0, epochs)] == pytest.approx([1e-6, 1e-6])
    assert factor(10 * steps) == pytest.approx(1, abs=1e-3)
    model = trainer._unwrapped_model
    groups = {
        group["weight_decay"]: {id(parameter) for parameter in group["params"]}
        for group in trainer.optimizer.param_groups
    }
    assert groups[1e-6] == {
        id(value) for name, value in model.named_parameters() if name not in model.no_weight_decay()
    }
    batch = next(iter(trainer.train_loader))
    trainer.model.train()
    trainer.step = 1
    trainer.guard.take(trainer._compute_loss(trainer._forward(batch), batch), batch, batch, {})
    assert trainer.validate(disable_tqdm=True)["forces_mae"]["metric"] > 0
