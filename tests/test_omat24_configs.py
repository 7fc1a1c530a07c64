"""The recipes in configs/omat24: numbers of fairchem's files, and runs with small models."""

import math
import re

import numpy as np
import pytest
from fairchem.core.common.utils import load_config

from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from tests.conftest import build_model
from tests.crystals import write_crystals
from tests.runs import logged, run
from tests.test_configs import CONFIGS, config_of, option

FOLDER = CONFIGS / "omat24" / "mptrj"
DENS = DeNSConfig(p=0.5, r=1, sigma=0.1, coefficient=10, stress=False)
# fairchem-core 1.10.0, configs/omat24/mptrj; DeNS' parameters are counted here
SHARED = {
    "dataset.train.format": "ase_db",
    "model.max_neighbors": 20, "model.max_radius": 12.0, "model.max_num_elements": 96,
    "model.enforce_max_neighbors_strictly": False, "model.use_pbc_single": True,
    "model.avg_num_nodes": 31.16592360068011, "model.avg_degree": 61.94676351484548,
    "model.sphere_channels": 128, "model.attn_hidden_channels": 64, "model.num_heads": 8,
    "model.attn_alpha_channels": 64, "model.attn_value_channels": 16,
    "model.ffn_hidden_channels": 128, "model.grid_resolution": 18, "model.edge_channels": 128,
    "model.norm_type": "layer_norm_sh", "model.attn_activation": "silu",
    "model.ffn_activation": "silu", "model.use_grid_mlp": True, "model.use_sep_s2_act": True,
    "model.alpha_drop": 0.1, "model.drop_path_rate": 0.1, "model.weight_init": "uniform",
    "optim.lr_initial": 2e-4, "optim.optimizer": "AdamW",
    "optim.optimizer_params": {"weight_decay": 0.001}, "optim.scheduler": "LambdaLR",
    "optim.scheduler_params": {
        "lambda_type": "cosine", "warmup_factor": 0.2, "warmup_epochs": 0.1, "lr_min_factor": 0.01,
    },
    "optim.max_epochs": 150, "optim.clip_grad_norm": 100, "optim.ema_decay": 0.999,
    "optim.eval_every": 5000, "optim.load_balancing": "atoms",
    "evaluation_metrics.primary_metric": "energy_mae",
}  # fmt: skip
# recipe: layers, Lmax, Mmax, batch of a GPU, weight of the energy, parameters with those of DeNS
# and without
RECIPES = {
    "eqV2_31M_dens.yml": (8, 4, 2, 4, 5, 34_339_083, 31_207_434),
    "eqV2_86M_dens.yml": (10, 6, 4, 8, 2.5, 94_033_933, 86_589_068),
    "eqV2_153M_dens.yml": (20, 6, 3, 8, 2.5, 160_673_293, 153_769_868),
    "eqV2_31M.yml": (8, 4, 2, 4, 5, 34_339_083, 31_207_434),
}
recipes = pytest.mark.parametrize("recipe", RECIPES)
# the public eSEN-30M (arXiv 2502.12147, Matbench Discovery); DeNS of fairchem's recipes above
ESEN = {
    "model.name": "esen_dens", "model.num_layers": 10, "model.lmax": 3, "model.mmax": 2,
    "model.sphere_channels": 128, "model.hidden_channels": 128, "model.edge_channels": 128,
    "model.cutoff": 6.0, "model.max_neighbors": 300, "model.num_distance_basis": 10,
    "model.distance_function": "gaussian", "model.act_type": "gate", "model.mlp_type": "spectral",
    "model.use_envelope": True, "model.norm_type": "rms_norm_sh", "optim.batch_size": 4,
    "optim.eval_batch_size": 4,
}  # fmt: skip
# recipe: epochs, parameters with those of DeNS and without
ESEN_RECIPES = {
    "esen_30M_dens_direct.yml": (70, 30_218_890, 30_217_993),
    "esen_30M_conservative.yml": (30, 30_085_121, 30_085_121),
}
esen_recipes = pytest.mark.parametrize("recipe", ESEN_RECIPES)
COMMON = {"common.yml", "common_eqV2.yml", "common_eSEN.yml"}


def test_every_recipe_is_tested():
    assert {path.name for path in FOLDER.glob("*.yml")} == {*RECIPES, *ESEN_RECIPES, *COMMON}


@esen_recipes
def test_esen(recipe):
    epochs, parameters, without = ESEN_RECIPES[recipe]
    direct = recipe == "esen_30M_dens_direct.yml"
    config = config_of(FOLDER / recipe)
    expected = ESEN | {"optim.max_epochs": epochs, "dataset.train.format": "ase_db"}
    assert {name: option(config, name) for name in expected} == expected
    assert config["model"]["forces"] == ("direct" if direct else "gradient")
    dens = DENS if direct else DeNSConfig(enabled=False)
    assert parse_dens_config(config["optim"]) == dens
    assert load_config(FOLDER / recipe)[1:] == ([], [])
    model = build_model(config["model"])
    sizes = {name: each.numel() for name, each in model.named_parameters()}
    of_dens = [n for name, n in sizes.items() if name.startswith(("force_embedding", "noise_head"))]
    assert (sum(sizes.values()), sum(sizes.values()) - sum(of_dens)) == (parameters, without)
    header = (FOLDER / recipe).read_text().partition("\nincludes:")[0]
    assert f"{parameters:,}" in header and f"{without:,}" in header and "Ours" in header
    steps, frames = re.search(r"# cost +([\d,]+) steps \(([\d,]+) frames", header).groups()
    share = math.ceil(int(frames.replace(",", "")) / 128)
    assert int(steps.replace(",", "")) == math.ceil(share / 4) * epochs


SMALL_ESEN_OPTIONS = [
    "--model.num_layers=1", "--model.sphere_channels=8", "--model.hidden_channels=8",
    "--model.edge_channels=8", "--model.lmax=2", "--logger=tensorboard", "--optim.num_workers=0",
    "--optim.max_epochs=2", "--optim.scheduler_params.warmup_epochs=0.5", "--optim.eval_every=100",
]  # fmt: skip


def test_esen_in_two_stages(tmp_path):
    """Direct with DeNS, then conservative from its checkpoint, through the command line."""
    data = write_crystals(tmp_path)
    options = [f"--dataset.{split}.src={data / split}" for split in ("train", "val")]
    options += SMALL_ESEN_OPTIONS
    direct = run("train", FOLDER / "esen_30M_dens_direct.yml", *options, "--timestamp-id", "a",
                 cwd=tmp_path)  # fmt: skip
    assert any(line.get("loss_noise") for line in logged(tmp_path, "a")), direct.stdout
    start = tmp_path / "checkpoints" / "a" / "best_checkpoint.pt"
    second = run(
        "train", FOLDER / "esen_30M_conservative.yml", *options, "--timestamp-id", "b",
        "--checkpoint", str(start), cwd=tmp_path,
    )  # fmt: skip
    said = second.stdout + second.stderr
    assert "has force_embedding, force_head, heads, noise_head, which this model does not" in said
    lines = logged(tmp_path, "b")
    for name in ("loss_energy", "loss_forces", "loss_stress_isotropic", "loss_stress_anisotropic"):
        assert all(np.isfinite(line[name]) for line in lines)
    assert not any("loss_noise" in line for line in lines)
    # a resume goes on, and does not start anew
    own = tmp_path / "checkpoints" / "b" / "checkpoint.pt"
    third = run(
        "train", FOLDER / "esen_30M_conservative.yml", *options, "--timestamp-id", "b",
        "--checkpoint", str(own), "--optim.max_epochs=3", cwd=tmp_path,
    )  # fmt: skip
    assert "which this model does not" not in third.stdout + third.stderr
    assert [line["step"] for line in logged(tmp_path, "b")] == list(
        range(1, 1 + 3 * len(lines) // 2)
    )


@recipes
def test_settings(recipe):
    layers, lmax, mmax, batch, energy, *_ = RECIPES[recipe]
    own = {
        "model.num_layers": layers, "model.lmax_list": [lmax], "model.mmax_list": [mmax],
        "optim.batch_size": batch, "optim.eval_batch_size": batch,
    }  # fmt: skip
    config = config_of(FOLDER / recipe)
    expected = SHARED | own
    assert {name: option(config, name) for name in expected} == expected
    losses = {name: each for entry in config["loss_functions"] for name, each in entry.items()}
    weights = {name: (each["fn"], each["coefficient"]) for name, each in losses.items()}
    assert weights == {
        "energy": ("per_atom_mae", energy), "forces": ("l2mae", 20),
        "stress_isotropic": ("mae", 5), "stress_anisotropic": ("mae", 5),
    }  # fmt: skip
    enabled = recipe.endswith("_dens.yml")
    assert parse_dens_config(config["optim"]) == DENS.model_copy(update={"enabled": enabled})
    assert load_config(FOLDER / recipe)[1:] == ([], [])


@recipes
def test_header_agrees_with_the_settings(recipe):
    *_, batch, _, parameters, without = RECIPES[recipe]
    text = (FOLDER / recipe).read_text()
    header = text[: text.index("\nincludes:")]
    assert all(line.startswith("#") for line in header.strip().splitlines())
    line = r"# GPUs +(\d+), (\d+) structures each: batch (\d+)"
    gpus, per_gpu, total = map(int, re.search(line, header).groups())
    assert (per_gpu, gpus * per_gpu, total) == (batch, 512, 512)
    # as fairchem's sampler: each rank its share of the frames, in batches, the last one too
    steps, frames, epochs = re.search(
        r"# cost +([\d,]+) steps \(([\d,]+) frames, (\d+) epochs\)", header
    ).groups()
    share = math.ceil(int(frames.replace(",", "")) / gpus)
    assert int(steps.replace(",", "")) == math.ceil(share / per_gpu) * int(epochs)
    assert int(epochs) == config_of(FOLDER / recipe)["optim"]["max_epochs"]
    nodes, on_a_node = map(int, re.search(r"--num-nodes (\d+) --num-gpus (\d+)", header).groups())
    assert nodes * on_a_node == gpus
    assert f"--config-yml configs/omat24/mptrj/{recipe}" in header
    dens = parameters if recipe.endswith("_dens.yml") else parameters - without
    assert f"{without:,}" in header and f"{dens:,}" in header
    for word in ("cost", "expected result", "source"):
        assert word in header


@pytest.mark.slow
@recipes
def test_number_of_parameters(recipe):
    *_, parameters, without = RECIPES[recipe]
    model = build_model(config_of(FOLDER / recipe)["model"])
    sizes = {name: each.numel() for name, each in model.named_parameters()}
    dens = sum(n for name, n in sizes.items() if name.startswith(("force_embedding", "noise_head")))
    assert (sum(sizes.values()), sum(sizes.values()) - dens) == (parameters, without)


SMALL = [
    "--model.num_layers=1", "--model.sphere_channels=8", "--model.attn_hidden_channels=8",
    "--model.num_heads=2", "--model.attn_alpha_channels=4", "--model.attn_value_channels=4",
    "--model.ffn_hidden_channels=8", "--model.edge_channels=8", "--model.lmax_list=[2]",
    "--model.mmax_list=[2]", "--logger=tensorboard", "--optim.num_workers=0",
    "--optim.max_epochs=2", "--optim.scheduler_params.warmup_epochs=0.5",
]  # fmt: skip


@pytest.mark.parametrize("recipe", ["eqV2_31M_dens.yml", "eqV2_31M.yml"])
def test_a_run(tmp_path, recipe):
    data = write_crystals(tmp_path)
    options = [f"--dataset.{split}.src={data / split}" for split in ("train", "val")]
    run("train", FOLDER / recipe, *options, *SMALL, "--timestamp-id", "a", cwd=tmp_path)
    lines = logged(tmp_path, "a")
    assert len(lines) == 6
    for name in ("loss_energy", "loss_forces", "loss_stress_isotropic", "loss_stress_anisotropic"):
        assert all(np.isfinite(line[name]) for line in lines)
    assert any(line.get("loss_noise") for line in lines) is (recipe == "eqV2_31M_dens.yml")
