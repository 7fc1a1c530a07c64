"""Sections of configs: what others have published passes, mistakes are refused by name."""

import copy
import subprocess
import sys

import pytest
import yaml

from dens_ocp.errors import DensError
from dens_ocp.settings import config_file, run, run_config
from dens_ocp.settings.sections.optim import needed_for_training
from tests.conftest import ROOT
from tests.runs import small_config, write_config

RECIPES = sorted((ROOT / "configs").rglob("*.yml"))
TRAINED = [path for path in RECIPES if "src" in path.read_text() or "includes" in path.read_text()]

# The keys of fairchem's and the authors' published configs, a file each; values are theirs.
ESCN_2M = """
trainer: dens
dataset:
  train:
    format: lmdb
    src: data/s2ef/2M/train/
    key_mapping: {y: energy, force: forces}
    transforms: {normalizer: {energy: {mean: -0.755, stdev: 2.887},
                              forces: {mean: 0, stdev: 2.887}}}
  val: {src: data/s2ef/all/val_id/}
logger: wandb
outputs:
  energy: {shape: 1, level: system}
  forces: {irrep_dim: 1, level: atom, train_on_free_atoms: True, eval_on_free_atoms: True}
loss_functions: [{energy: {fn: mae, coefficient: 2}}, {forces: {fn: l2mae, coefficient: 100}}]
evaluation_metrics:
  metrics: {energy: [mae], forces: [mae, cosine_similarity, magnitude_error],
            misc: [energy_forces_within_threshold]}
  primary_metric: forces_mae
model: {name: escn_dens, num_layers: 12, cutoff: 12.0, lmax_list: [6], basis_width_scalar: 2.0}
optim: {batch_size: 6, eval_batch_size: 6, num_workers: 8, lr_initial: 0.0008, optimizer: AdamW,
  optimizer_params: {amsgrad: True}, eval_every: 5000, lr_gamma: 0.3,
  lr_milestones: [145833, 187500, 229166], warmup_steps: 100, warmup_factor: 0.2, max_epochs: 12,
  clip_grad_norm: 20, ema_decay: 0.999}
"""
OLD = """
trainer: dens
dataset:
  train: {src: data_odac/s2ef/train, normalize_labels: True, target_mean: -0.4, target_std: 1.45,
          grad_target_mean: 0.0, grad_target_std: 0.0426}
  val: {src: data_odac/s2ef/val}
logger: {name: wandb}
task:
  dataset: trajectory_lmdb
  description: "Regressing to energies and forces for DFT trajectories from ODAC"
  type: regression
  metric: mae
  labels: [potential energy]
  grad_input: atomic forces
  train_on_free_atoms: True
  eval_on_free_atoms: True
  primary_metric: forces_mae
  relaxation_steps: 125
  relaxation_fmax: 0.05
  write_pos: True
  relax_dataset: {src: data_odac/is2r/val}
  relax_opt: {name: lbfgs, maxstep: 0.04, memory: 50, damping: 1.0, alpha: 70.0}
model: {name: escn_dens, num_layers: 12, cutoff: 8.0, max_num_elements: 100}
optim: {batch_size: 4, eval_batch_size: 4, num_workers: 8, lr_initial: 0.0008, optimizer: AdamW,
  optimizer_params: {amsgrad: True, weight_decay: 0.1}, eval_every: 5000, max_epochs: 24,
  clip_grad_norm: 20, ema_decay: 0.999, scheduler: CosineAnnealingLR, T_max: 2000000,
  loss_energy: mae, loss_force: atomwisel2, force_coefficient: 1, energy_coefficient: 1}
"""
TESTS_OF_FAIRCHEM = """
trainer: dens
logger: {name: tensorboard}
model: {name: escn_dens, num_layers: 2}
optim: {batch_size: 5, eval_batch_size: 2, num_workers: 0, lr_initial: 0.0025, optimizer: AdamW,
  optimizer_params: {"amsgrad": True, weight_decay: 0.0}, eval_every: 190, max_epochs: 50,
  force_coefficient: 20, scheduler: "Null", energy_coefficient: 1, clip_grad_norm: 20,
  loss_energy: mae, loss_force: l2mae}
"""
OC22_JOINT = """
trainer: dens
dataset:
  train: {src: data/oc20+oc22/s2ef/train, normalize_labels: False, oc20_ref: path/to/oc22_ref.pkl}
  val: {src: data/oc22/s2ef/val_id, oc20_ref: path/to/oc22_ref.pkl}
task: {dataset: oc22_lmdb, prediction_dtype: float32}
optim: {batch_size: 16, load_balancing: neighbors, eval_every: 5000, lr_initial: 5.e-4,
  optimizer: AdamW, optimizer_params: {"amsgrad": True}, scheduler: ReduceLROnPlateau, mode: min,
  factor: 0.8, patience: 3, max_epochs: 80, ema_decay: 0.999, clip_grad_norm: 10, weight_decay: 0,
  warmup_steps: -1, grad_accumulation_steps: 1}
hide_eval_progressbar: False
"""
OMAT = """
dataset:
  train:
    format: ase_db
    src: [/dataset/mptraj/train, /dataset/mptraj/more]
    a2g_args: {r_energy: True, r_forces: True, r_stress: True}
    transforms:
      decompose_tensor: {tensor: stress, rank: 2, decomposition: {stress_isotropic: {irrep_dim: 0},
        stress_anisotropic: {irrep_dim: 2}}}
      normalizer: {fit: {targets: {forces: {mean: 0.0}, stress_isotropic: {},
        stress_anisotropic: {}}, batch_size: 64, num_batches: 10000}}
      element_references: {fit: {targets: [energy], batch_size: 64, num_batches: 10000}}
outputs:
  energy: {level: system, property: energy}
  forces: {level: atom, property: forces, train_on_free_atoms: True, eval_on_free_atoms: True}
  stress: {level: system, property: stress, decomposition: {stress_isotropic: {irrep_dim: 0},
    stress_anisotropic: {irrep_dim: 2}}}
loss_functions: [{energy: {fn: per_atom_mae, coefficient: 5}},
  {forces: {fn: l2mae, coefficient: 20}},
  {stress_isotropic: {fn: mae, coefficient: 5}},
  {stress_anisotropic: {fn: mae, reduction: mean, coefficient: 5}}]
evaluation_metrics:
  primary_metric: energy_mae
  metrics: {energy: [mae, per_atom_mae], forces: [mae, forcesx_mae], stress: [mae],
    stress_isotropic: [mae], stress_anisotropic: [mae]}
optim:
  use_denoising_pos: True
  denoising_pos_params: {prob: 0.5, fixed_noise_std: True, std: 0.1, num_steps: 50, std_low: None,
    std_high: None}
  denoising_pos_coefficient: 10
slurm: {constraint: "volta32gb"}
compute_stats: False
"""
TUTORIAL = """
amp: true
gpus: 1
trainer: dens
task: {dataset: ase_db, prediction_dtype: float32}
test_dataset: {src: leMat.aselmdb, format: ase_db, a2g_args: {r_energy: false}}
dataset:
  train: {src: train.db, format: ase_db, a2g_args: {r_energy: true, r_forces: true}}
  val: {src: data/val, format: lmdb, a2g_args: {r_energy: true}}
optim: {scheduler_params: {epochs: 741904, lambda_type: cosine, lr: 0.0002, lr_min_factor: 0.01,
  warmup_epochs: 463, warmup_factor: 0.2}, scheduler: LambdaLR, batch_size: 4, eval_every: 10}
eval_metrics: {metrics: {energy: [mae]}, primary_metric: energy_mae}
loss_fns: [{energy: {fn: mae, coefficient: 1}}]
logger: tensorboard
"""
FINE_TUNING = """
trainer: dens
dataset:
  train: {src: data_odac/s2ef/train, target: raw_y}
  val: {src: data_odac/s2ef/val_0.1, target: raw_y}
optim: {batch_size: 16, lr_initial: 1.e-4, warmup_steps: -1, lr_gamma: 0.8, max_epochs: 15,
  lr_milestones: [64000, 96000, 128000], ema_decay: 0.999, clip_grad_norm: 10}
"""
PUBLISHED = {
    "fine-tuning": FINE_TUNING,
    "escn_2m": ESCN_2M, "old": OLD, "fairchem's tests": TESTS_OF_FAIRCHEM, "oc22": OC22_JOINT,
    "omat24": OMAT, "tutorial": TUTORIAL,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_pass(name):
    config = yaml.safe_load(PUBLISHED[name])
    before = copy.deepcopy(config)
    checked = run.checked(config)
    assert config == before
    assert checked.keys() == config.keys()
    assert checked["optim"].keys() == config["optim"].keys()
    if "dataset" in config:
        assert checked["dataset"].keys() == config["dataset"].keys()
        assert checked["dataset"]["train"].keys() == config["dataset"]["train"].keys()
    if "lr_initial" in config["optim"]:
        needed_for_training(checked["optim"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_recipes_stay_as_they_are(path):
    config = config_file.read(path)
    if "model" not in config and "optim" not in config:
        pytest.skip("an ablation plan")
    assert run.checked(config) == config


@pytest.mark.parametrize("name", ["authors_form_equiformer_v2.yml", "authors_form_escn.yml"])
def test_the_authors_forms_stay_as_they_are(name):
    config = config_file.read(ROOT / "tests/settings/authors_forms" / name)
    assert run.checked(config) == config
    needed_for_training(config["optim"])


def test_old_configs_are_translated(tmp_path):
    path = tmp_path / "c.yml"
    path.write_text(OLD.replace("energy_coefficient: 1", 'energy_coefficient: "1e1"'))
    config = run_config.read(path, ["--dataset.train.target_std=2e0"])
    assert config["loss_functions"][0] == {"energy": {"fn": "mae", "coefficient": 10}}
    assert config["loss_functions"][1] == {"forces": {"fn": "l2mae", "coefficient": 1}}
    normalizer = config["dataset"]["train"]["transforms"]["normalizer"]
    assert normalizer["energy"] == {"mean": -0.4, "stdev": 2.0}
    assert config["evaluation_metrics"]["primary_metric"] == "forces_mae"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optm.batch_size=3", ["optm", "'optim'"]),
        ("traner=dens", ["traner", "'trainer'"]),
        ("modl.name=x", ["modl", "'model'"]),
        ("los_functions=3", ["los_functions", "'loss_functions'"]),
        ("something=3", ["something", "known"]),
        ("optim.batchsize=3", ["optim.batchsize", "'batch_size'"]),
        ("optim.max_epoch=3", ["optim.max_epoch", "'max_epochs'"]),
        ("optim.schedular=Null", ["optim.schedular", "'scheduler'"]),
        ("task.relaxation_step=3", ["task.relaxation_step", "'relaxation_steps'"]),
        ("task.prediction_dtype=float64", ["task.prediction_dtype", "float64", "float32"]),
        ("dataset.valid.src=x", ["dataset.valid", "'val'"]),
        ("dataset.train.keymapping=x", ["dataset.train.keymapping", "'key_mapping'"]),
        ("dataset.val.frist_n=3", ["dataset.val.frist_n", "'first_n'"]),
        ("dataset.train.first_n=2.5", ["dataset.train.first_n", "2.5", "whole"]),
        ("dataset.train.format=lmbd", ["dataset.train.format", "'lmdb'"]),
        ("dataset.train.a2g_args.r_force=True", ["a2g_args.r_force", "'r_forces'"]),
        ("dataset.train.transforms.normaliser.energy=1", ["normaliser", "'normalizer'"]),
        ("dataset.train.transforms.normalizer.force.mean=0", ["force.stdev is missing"]),
        ("dataset.train.transforms.normalizer.forces.std=1", ["forces.std", "'stdev'"]),
        ("dataset.train.transforms.normalizer.forces.stdev=0", ["forces.stdev", "larger than 0"]),
        ("dataset.train.transforms.normalizer.fit.targets=energy", ["fit.batch_size is missing"]),
        ("outputs.energy.levl=atom", ["outputs.energy.levl", "'level'"]),
        ("outputs.forces.level=atoms", ["outputs.forces.level", "'atom'"]),
        ("outputs.stress.property=x", ["outputs.stress.level is missing"]),
        ("outputs.forces.train_on_free_atom=1", ["train_on_free_atom", "'train_on_free_atoms'"]),
        ("evaluation_metrics.primary_metrics=x", ["primary_metrics", "'primary_metric'"]),
        ("evaluation_metrics.primary_metric=force_mae", ["force_mae", "'forces_mae'"]),
        ("evaluation_metrics.metrics.forces=['maee']", ["metrics.forces", "'mae'"]),
        ("evaluation_metrics.metrics.force=['mae']", ["metrics.force", "'forces'"]),
        ("loss_functions=[{'force': {'fn': 'l2mae', 'coefficient': 1}}]", ["force", "'forces'"]),
        ("loss_functions=[{'forces': {'fn': 'l2mea', 'coefficient': 1}}]", ["l2mea", "'l2mae'"]),
        ("loss_functions=[{'forces': {'fn': 'l2mae'}}]", ["forces.coefficient is missing"]),
        ("loss_functions=mae", ["loss_functions", "'mae'", "list of losses"]),
        ("logger=tensorbord", ["logger", "tensorbord", "'tensorboard'"]),
        ("logger.name=wandbb", ["logger.name", "'wandb'"]),
        ("logger.projct=x", ["logger.projct", "'project'"]),
        ("model.name=equiformer_v2_den", ["model.name", "'equiformer_v2_dens'"]),
        ("model.max_radius=wide", ["model.max_radius", "'wide'", "a number"]),
        ("hide_eval_progressbar=maybe", ["hide_eval_progressbar", "'maybe'"]),
    ],
)
def test_mistakes_are_refused_by_name(tmp_path, override, words):
    path = write_config(tmp_path / "c.yml", small_config(tmp_path))
    with pytest.raises(DensError) as raised:
        run_config.read(path, [f"--{override}"])
    assert all(word in str(raised.value) for word in words), raised.value


def test_what_can_be_put_right_is():
    config = run.checked(
        {
            "dataset": {"format": "LMDB", "src": "data/train", "first_n": "5e1"},
            "outputs": {"energy": None, "forces": {"train_on_free_atoms": "False"}},
            "loss_functions": {"energy": {"fn": "MAE", "coefficient": "2e0"}},
            "evaluation_metrics": {"metrics": {"energy": "mae"}},
            "optim": {"scheduler": None, "clip_grad_norm": False, "max_epochs": 4.0},
            "x-mine": 3,
        }
    )
    assert config["dataset"] == {"train": {"format": "lmdb", "src": "data/train", "first_n": 50}}
    assert config["outputs"] == {
        "energy": {"level": "system"},
        "forces": {"train_on_free_atoms": False, "level": "atom"},
    }
    assert config["loss_functions"] == [{"energy": {"fn": "mae", "coefficient": 2.0}}]
    assert config["evaluation_metrics"] == {"metrics": {"energy": ["mae"]}}
    assert config["optim"] == {"scheduler": "Null", "clip_grad_norm": 0, "max_epochs": 4}


@pytest.mark.parametrize("word", ["none", "None", None])
def test_no_record_is_md_is_not_the_same_as_nothing(word):
    train = {"format": "dens_lmdb", "src": "data", "md_source": word}
    left = run.checked({"dataset": {"train": train}})["dataset"]["train"].get("md_source")
    assert left == (None if word is None else "none")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lr_initial": None}, ["optim.lr_initial is missing"]),
        ({"max_epochs": None}, ["optim.max_epochs is missing"]),
        ({"scheduler_params": None}, ["optim.scheduler_params is missing", "lambda_type"]),
        ({"scheduler": "CosineAnnealingLR", "scheduler_params": None}, ["optim.T_max is missing"]),
        ({"scheduler": "CosineAnnealingLR"}, ["optim.scheduler_params.T_max is missing"]),
        ({"scheduler_params": {"lambda_type": "multistep", "warmup_factor": 0.2,
          "warmup_epochs": 0.1}}, ["decay_epochs is missing", "multistep"]),
        ({"scheduler": "", "scheduler_params": None}, []),
        ({"lr_milestones": [10, 20]}, []),  # not looked at: there is a scheduler
    ],
)  # fmt: skip
def test_what_training_needs(tmp_path, change, words):
    optim = run.checked({"optim": small_config(tmp_path)["optim"] | change})["optim"]
    if not words:
        needed_for_training(optim)
        return
    with pytest.raises(DensError) as raised:
        needed_for_training(optim)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    ("optim", "words"),
    [
        ({"lr_milestones": [10, 20]}, ["lr_milestones: [10, 20]", "in steps", "decay_epochs: [10"]),
        ({"lr_milestones": [500], "warmup_epochs": 1}, ["optim.warmup_epochs", "in steps"]),
        ({"lr_milestones": [500]}, ["optim.lr_gamma is missing"]),
    ],
)
def test_milestones_count_steps(optim, words):
    checked = run.checked({"optim": {"lr_initial": 0.1, "max_epochs": 1, **optim}})["optim"]
    with pytest.raises(DensError) as raised:
        needed_for_training(checked)
    assert all(word in str(raised.value) for word in words), raised.value


@pytest.mark.parametrize(
    "call",
    [
        "dataset.data_format('oc22_lmdb', '')",
        "dataset.data_format('ase_read', '')",
        "task.logger('wandb')",
        "task.logger('tensorboard')",
        "targets.losses([{'energy': {'fn': 'l2mae', 'coefficient': 1}}])",
        "run.model({'name': 'gemnet_oc'})",
    ],
)
def test_names_of_fairchem_in_a_process_that_has_imported_nothing_of_it(call):
    """They are registered when fairchem's modules are imported, which a run does later."""
    imports = "from dens_ocp.settings import run; from dens_ocp.settings.sections import "
    program = f"{imports}dataset, targets, task; {call}"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
