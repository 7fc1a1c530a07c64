"""The recipes in configs/: every number of the paper's settings, and models that build."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fairchem.core.common.flags import flags
from fairchem.core.common.utils import build_config, load_config

from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from tests.conftest import ROOT, build_model
from tests.lmdbs import s2ef_records, write_lmdb, write_s2ef
from tests.runs import make_trainer

CONFIGS = ROOT / "configs"
AUTHORS = Path(__file__).parent / "settings" / "authors_forms"

# What all recipes share (paper, Tables 7 and 8), as dotted options of the config.
SHARED = {
    "trainer": "dens_ocp.trainer.DeNSTrainer",
    "model.max_neighbors": 20,
    "model.sphere_channels": 128,
    "model.num_layers": 12,
    "model.lmax_list": [6],
    "model.mmax_list": [2],
    "model.num_sphere_samples": 128,
    "model.otf_graph": True,
    "model.use_force_encoding": True,
    "optim.optimizer": "AdamW",
    "optim.scheduler": "LambdaLR",
    "optim.scheduler_params.warmup_factor": 0.2,
    "optim.clip_grad_norm": 100,
    "optim.ema_decay": 0.999,
    "optim.load_balancing": "atoms",
    "optim.eval_every": 5000,
    "lambda_E": 2,
    "lambda_F": 100,
    "energy.mean": -0.7554450631141663,
    "energy.stdev": 2.887317180633545,
    "forces.stdev": 2.887317180633545,
    "evaluation_metrics.primary_metric": "forces_mae",
    "dataset.train.format": "lmdb",
    "dataset.val.format": "lmdb",
    "task.relaxation_fmax": 0.02,
    "task.relax_opt.memory": 50,
}
ESEN = {
    **{name: value for name, value in SHARED.items() if not name.startswith("model.")},
    "model.name": "esen_dens", "model.num_layers": 10, "model.lmax": 3, "model.mmax": 2,
    "model.sphere_channels": 128, "model.hidden_channels": 128, "model.edge_channels": 128,
    "model.cutoff": 6.0, "model.num_distance_basis": 10, "model.act_type": "gate",
    "model.mlp_type": "spectral", "model.use_envelope": True, "model.forces": "direct",
    "optim.optimizer_params": {"weight_decay": 1e-3},
}  # fmt: skip
EQUIFORMER = SHARED | {
    "model.name": "equiformer_v2_dens",
    "model.max_radius": 12.0,
    "model.attn_hidden_channels": 64,
    "model.num_heads": 8,
    "model.attn_alpha_channels": 64,
    "model.attn_value_channels": 16,
    "model.ffn_hidden_channels": 128,
    "model.edge_channels": 128,
    "model.grid_resolution": 18,
    "model.norm_type": "layer_norm_sh",
    "model.attn_activation": "silu",
    "model.ffn_activation": "silu",
    "model.use_grid_mlp": True,
    "model.use_sep_s2_act": True,
    "model.use_attn_renorm": True,
    "model.use_gate_act": False,
    "model.weight_init": "uniform",
    "model.use_atom_edge_embedding": True,
    "model.share_atom_edge_embedding": False,
    "model.max_num_elements": 90,
    "model.alpha_drop": 0.1,
    "model.drop_path_rate": 0.05,
    "model.enforce_max_neighbors_strictly": True,
    "optim.batch_size": 4,
    "optim.optimizer_params": {"weight_decay": 1e-3},
    "optim.scheduler_params.lambda_type": "cosine",
    "optim.scheduler_params.warmup_epochs": 0.1,
    "optim.scheduler_params.lr_min_factor": 0.01,
}
# OC20 2M: the relaxation settings beside the authors' 2M configs; the other sets: the paper's
ABLATION_RELAXATIONS = {
    "task.relaxation_steps": 200,
    "task.relax_opt.maxstep": 0.04,
    "task.relax_opt.damping": 1.0,
    "task.relax_opt.alpha": 70.0,
}
FULL_RELAXATIONS = {
    "task.relaxation_steps": 300,
    "task.relax_opt.maxstep": 0.2,
    "task.relax_opt.damping": 1.2,
    "task.relax_opt.alpha": 80.0,
}
TWO_MILLION = EQUIFORMER | ABLATION_RELAXATIONS

# recipe: (settings, DeNS, size of the batch over all GPUs, parameters)
RECIPES = {
    "oc20/2M/equiformer_v2_dens_12_epochs.yml": (
        TWO_MILLION | {"optim.lr_initial": 2e-4, "optim.max_epochs": 12},
        DeNSConfig(p=0.5, coefficient=10, sigma=0.1, r=0.5),
        64,
        89_148_163,
    ),
    "oc20/2M/equiformer_v2_dens_20_epochs.yml": (
        TWO_MILLION | {"optim.lr_initial": 4e-4, "optim.max_epochs": 20},
        DeNSConfig(p=0.5, coefficient=10, sigma=0.15, r=0.5),
        128,
        89_148_163,
    ),
    "oc20/2M/equiformer_v2_dens_30_epochs.yml": (
        TWO_MILLION | {"optim.lr_initial": 4e-4, "optim.max_epochs": 30},
        DeNSConfig(p=0.5, coefficient=10, sigma=0.15, r=0.5),
        128,
        89_148_163,
    ),
    "oc20/2M/escn_dens_20_epochs.yml": (
        SHARED
        | ABLATION_RELAXATIONS
        | {
            "model.name": "escn_dens",
            "model.cutoff": 12.0,
            "model.hidden_channels": 256,
            "model.basis_width_scalar": 2.0,
            "optim.batch_size": 6,
            "optim.lr_initial": 8e-4,
            "optim.optimizer_params": {"amsgrad": True, "weight_decay": 1e-2},
            "optim.scheduler_params.lambda_type": "multistep",
            "optim.scheduler_params.warmup_epochs": 0.01,
            "optim.scheduler_params.decay_epochs": [11.7, 15, 18.3],
            "optim.scheduler_params.decay_rate": 0.3,
            "optim.max_epochs": 20,
        },
        DeNSConfig(p=0.5, coefficient=10, sigma=0.15, r=0.5),
        96,
        51_878_784,  # not in the paper: counted here
    ),
    "oc20/2M/esen_dens.yml": (
        ESEN
        | ABLATION_RELAXATIONS
        | {"optim.batch_size": 8, "optim.lr_initial": 4e-4, "optim.max_epochs": 12},
        DeNSConfig(p=0.5, coefficient=10, sigma=0.15, r=0.5),
        128,
        30_086_275,
    ),
    "oc20/all_md/equiformer_v2_dens.yml": (
        EQUIFORMER
        | FULL_RELAXATIONS
        | {
            "model.num_layers": 20,
            "model.mmax_list": [3],
            "model.drop_path_rate": 0.1,
            "optim.lr_initial": 4e-4,
            "optim.scheduler_params.warmup_epochs": 0.01,
            "optim.max_epochs": 2,
            "optim.eval_every": 25000,
            "lambda_E": 4,
            "dataset.train.format": "dens_lmdb",
        },
        DeNSConfig(p=0.125, coefficient=15, sigma=0.1, r=0.25),
        512,
        160_504_579,
    ),
    "oc22/equiformer_v2_dens.yml": (
        EQUIFORMER
        | FULL_RELAXATIONS
        | {
            "model.num_layers": 18,
            "model.drop_path_rate": 0.1,
            "model.enforce_max_neighbors_strictly": False,
            "optim.lr_initial": 2e-4,
            "optim.max_epochs": 6,
            "optim.clip_grad_norm": 50,
            "lambda_E": 4,
            "energy.mean": 0.0,
            "energy.stdev": 25.119809935106424,
            "forces.stdev": 0.14759646356105804,
            "evaluation_metrics.primary_metric": "energy_mae",
            "dataset.train.format": "oc22_lmdb",
            "dataset.val.format": "oc22_lmdb",
            "task.prediction_dtype": "float32",
        },
        DeNSConfig(p=0.5, coefficient=25, sigma=0.15, r=0.5),
        128,
        127_509_763,
    ),
}

SMALL = {
    "equiformer_v2_dens": {
        "num_layers": 1,
        "sphere_channels": 8,
        "attn_hidden_channels": 8,
        "num_heads": 2,
        "attn_alpha_channels": 4,
        "attn_value_channels": 4,
        "ffn_hidden_channels": 8,
        "edge_channels": 8,
        "lmax_list": [2],
        "mmax_list": [2],
    },
    "esen_dens": {"num_layers": 1, "sphere_channels": 8, "hidden_channels": 8, "edge_channels": 8},
    "escn_dens": {
        "num_layers": 1,
        "sphere_channels": 8,
        "hidden_channels": 8,
        "lmax_list": [2],
        "mmax_list": [2],
    },
}


def config_of(path: Path, *overrides: str) -> dict:
    """The config as ``fairchem --mode train --config-yml PATH OVERRIDES`` sees it."""
    arguments = ["--mode", "train", "--config-yml", str(path), *overrides]
    return build_config(*flags.get_parser().parse_known_args(arguments))


def option(config: dict, name: str):
    """The value of a dotted option, or of one of the table's short names."""
    targets = {"lambda_E": "energy", "lambda_F": "forces"}
    if name in targets:
        (loss,) = (entry for entry in config["loss_functions"] if targets[name] in entry)
        return loss[targets[name]]["coefficient"]
    if name.startswith(("energy.", "forces.")):
        name = f"dataset.train.transforms.normalizer.{name}"
    for key in name.split("."):
        config = config[key]
    return config


def values(config: dict) -> list:
    """All values of a config that are not sections."""
    found = []
    for value in config.values():
        found += values(value) if isinstance(value, dict) else [value]
    return found


def test_every_recipe_is_tested():
    top_level = {
        path for path in CONFIGS.rglob("*.yml") if "common" not in str(path.relative_to(ROOT))
    }
    # tests/tools/ablate
    elsewhere = {CONFIGS / n for n in ("ablations", "acetylacetone", "hot_crystals", "slabs")}
    recipes = {
        path
        for path in top_level
        if path.name != "evaluate.yml" and path.parent not in elsewhere  # in tests/results/pipeline
    }
    names = {str(path.relative_to(CONFIGS)) for path in recipes}
    # test_md17_configs.py, test_omat24_configs.py
    elsewhere = ("md17/", "omat24/")
    assert {name for name in names if not name.startswith(elsewhere)} == set(RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_settings(recipe):
    settings, dens, _, _ = RECIPES[recipe]
    config = config_of(CONFIGS / recipe)
    assert {name: option(config, name) for name in settings} == settings
    assert option(config, "forces.mean") == 0.0
    assert parse_dens_config(config["optim"]) == dens
    assert config["optim"]["eval_batch_size"] == config["optim"]["batch_size"]
    (energy, forces) = config["loss_functions"]
    assert (energy["energy"]["fn"], forces["forces"]["fn"]) == ("mae", "l2mae")
    # YAML 1.1 reads 2e-4 as text
    texts = [value for value in values(config) if isinstance(value, str)]
    assert not [text for text in texts if re.fullmatch(r"[\d.]+e-?\d+", text)]
    # what an include says is not said again
    assert load_config(CONFIGS / recipe)[1:] == ([], [])


@pytest.mark.parametrize("recipe", RECIPES)
def test_header_agrees_with_the_settings(recipe):
    _, _, batch, parameters = RECIPES[recipe]
    text = (CONFIGS / recipe).read_text()
    header = text[: text.index("\nincludes:")]
    assert all(line.startswith("#") for line in header.strip().splitlines())
    line = r"# GPUs +(\d+) V100 \(32 GB\), (\d+) structures each: batch (\d+)"
    gpus, per_gpu, total = map(int, re.search(line, header).groups())
    assert per_gpu == config_of(CONFIGS / recipe)["optim"]["batch_size"]
    assert gpus * per_gpu == total == batch
    nodes, on_a_node = map(int, re.search(r"--num-nodes (\d+) --num-gpus (\d+)", header).groups())
    assert nodes * on_a_node == gpus
    assert f"--config-yml configs/{recipe}" in header
    for word in ("cost", "expected result", "source", "GPU-hours"):
        assert word in header
    if "escn" not in recipe:
        assert f"{parameters:,}" in header


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    sorted(set(RECIPES) - {f"oc20/2M/equiformer_v2_dens_{n}_epochs.yml" for n in (20, 30)}),
)
def test_model_of_the_recipe(recipe):
    settings, _, _, parameters = RECIPES[recipe]
    model = build_model(config_of(CONFIGS / recipe)["model"])
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert model.cutoff == (6.0 if "esen" in recipe else 12.0)
    for name in ("max_neighbors", "lmax_list", "mmax_list", "lmax", "mmax", "sphere_channels"):
        if f"model.{name}" in settings:
            assert getattr(model, name) == settings[f"model.{name}"]
    assert model.otf_graph
    if "equiformer" in recipe:
        assert model.distance_expansion.num_output == 600
        assert len(model.blocks) == settings["model.num_layers"]
        assert model.blocks[-1].drop_path.drop_prob == settings["model.drop_path_rate"]
        strict = settings["model.enforce_max_neighbors_strictly"]
        assert model.enforce_max_neighbors_strictly == strict


def test_epochs_change_no_model():
    twelve, twenty, thirty = (
        config_of(CONFIGS / f"oc20/2M/equiformer_v2_dens_{epochs}_epochs.yml")["model"]
        for epochs in (12, 20, 30)
    )
    assert twelve == twenty == thirty


@pytest.mark.slow
def test_oc22_model_with_references_as_parameters():
    model = config_of(CONFIGS / "oc22/equiformer_v2_dens.yml", "--model.load_energy_lin_ref=True")
    parameters = build_model(model["model"]).parameters()
    assert sum(parameter.numel() for parameter in parameters) == 127_509_853


# ---- through fairchem's trainer, with small models on small data ----------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve frames to train, six to validate, in the forms that the recipes need."""
    folder = tmp_path_factory.mktemp("recipes")
    write_s2ef(folder / "train", 12)
    write_s2ef(folder / "val", 6, seed=1)
    (folder / "train" / "data_log.0000.txt").write_text(
        "".join(f"/oc20/{'md' if n % 2 else 'relaxations'}/random{n},{n},0.0\n" for n in range(12))
    )
    for name, count in (("oc22_train", 12), ("oc22_val", 6)):
        records = s2ef_records(count)
        for record in records:
            record.oc22, record.nads = 1, 1
        write_lmdb(folder / name / "data.0000.lmdb", records)
        natoms = np.array([record.natoms for record in records])
        np.savez(folder / name / "metadata.npz", natoms=natoms, neighbors=natoms * 12)
    np.savez(folder / "references.npz", coeff=np.arange(100) / 10)
    return folder


def trainer_of(path: Path, data: Path, run_dir: Path):
    config = copy.deepcopy(config_of(path))
    prefix = "oc22_" if config["dataset"]["train"]["format"] == "oc22_lmdb" else ""
    config["dataset"]["train"]["src"] = str(data / f"{prefix}train")
    config["dataset"]["val"]["src"] = str(data / f"{prefix}val")
    references = config["dataset"]["train"]["transforms"].get("element_references")
    if references:
        references["energy"]["file"] = str(data / "references.npz")
    config["model"] |= SMALL[config["model"]["name"]]
    config["optim"]["num_workers"] = 0
    return make_trainer(config, run_dir)


@pytest.mark.parametrize("recipe", RECIPES)
def test_trainer_does_what_the_recipe_says(recipe, data, tmp_path):
    settings, dens, _, _ = RECIPES[recipe]
    trainer = trainer_of(CONFIGS / recipe, data, tmp_path)
    assert trainer.dens == dens
    optimizer = trainer.optimizer
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["amsgrad"] is ("escn" in recipe)
    decays = {group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {0, settings["optim.optimizer_params"]["weight_decay"]}
    assert optimizer.defaults["lr"] == settings["optim.lr_initial"]
    assert trainer.clip_grad_norm == settings["optim.clip_grad_norm"]
    assert trainer.ema.decay == 0.999
    coefficients = {name: info["coefficient"] for name, info in trainer.loss_functions}
    assert coefficients == {"energy": settings["lambda_E"], "forces": settings["lambda_F"]}
    for target in ("energy", "forces"):
        stdev = torch.tensor(settings[f"{target}.stdev"])
        assert torch.equal(trainer.normalizers[target].rmsd, stdev)

    epoch = len(trainer.train_loader)
    factor = trainer.scheduler.scheduler.lr_lambdas[0]
    last = factor(settings["optim.max_epochs"] * epoch)
    if "escn" in recipe:
        assert [factor(int(e * epoch) + 1) for e in (1, 11.7, 15, 18.3)] == pytest.approx(
            [1, 0.3, 0.09, 0.027]
        )
        assert last == pytest.approx(0.027)
    else:
        assert last == pytest.approx(0.01)
        assert factor(settings["optim.max_epochs"] * epoch // 2) == pytest.approx(0.505, abs=0.1)
    assert factor(0) == pytest.approx(0.2)

    batch = next(iter(trainer.train_loader))
    if "all_md" in recipe:
        assert batch.md.tolist() == [int(sid) % 2 for sid in batch.sid]  # as data_log says
    if "oc22" in recipe:
        target = batch.energy.view(-1, 1)
        structures = batch.atomic_numbers.split(batch.natoms.tolist())
        references = torch.stack([numbers.float().sum() / 10 for numbers in structures])[:, None]
        dereferenced = trainer.elementrefs["energy"].dereference(target, batch)
        assert torch.allclose(dereferenced, target - references, atol=1e-4)
    trainer.model.train()
    out = trainer._forward(batch)
    assert torch.isfinite(trainer._compute_loss(out, batch))


def test_relaxations_by_a_command_line_option():
    """The words in the recipes' comments give fairchem a relaxation data set."""
    text = (CONFIGS / "oc20/all_md/equiformer_v2_dens.yml").read_text()
    options = re.search(r"--mode run-relaxations (--\S+) (--\S+)", text).groups()
    config = config_of(CONFIGS / "oc20/all_md/equiformer_v2_dens.yml", *options)
    assert config["dataset"]["relax"] == {"format": "lmdb", "src": "PATH"}


# ---- the authors' form ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("authors_form_equiformer_v2.yml", "oc20/2M/equiformer_v2_dens_12_epochs.yml"),
        ("authors_form_escn.yml", "oc20/2M/escn_dens_20_epochs.yml"),
    ],
)
def test_authors_form_says_what_the_recipe_says(name, recipe, data, tmp_path):
    theirs, ours = config_of(AUTHORS / name), config_of(CONFIGS / recipe)
    assert parse_dens_config(theirs["optim"]) == parse_dens_config(ours["optim"]).model_copy(
        update={"choice": "batch", "encode": "masked"}
    )
    for key in ("loss_functions", "outputs", "evaluation_metrics"):
        assert theirs[key] == ours[key]
    for section in ("model", "optim"):
        same = set(theirs[section]) & set(ours[section])
        assert {k: theirs[section][k] for k in same} == {k: ours[section][k] for k in same}
    assert set(ours["optim"]) - set(theirs["optim"]) == {"dens"}
    # what only one of the two says has no effect
    assert set(theirs["model"]) ^ set(ours["model"]) <= {
        "use_tp_reparam", "use_energy_lin_ref", "load_energy_lin_ref", "use_denoising_energy",
        "use_noise_schedule_sigma_encoding",
    }  # fmt: skip
    trainer = trainer_of(AUTHORS / name, data, tmp_path / "theirs")
    other = trainer_of(CONFIGS / recipe, data, tmp_path / "ours")
    shapes, others = (
        {key: value.shape for key, value in t.model.state_dict().items()} for t in (trainer, other)
    )
    assert shapes == others


def test_the_validation_set_of_oc22():
    """Another one than in the authors' file, which chose their best checkpoint
    (docs/differences.md)."""
    assert config_of(CONFIGS / "oc22/equiformer_v2_dens.yml")["dataset"]["val"]["src"].endswith(
        "val_id"
    )
