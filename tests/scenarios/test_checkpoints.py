"""Checkpoints: ours in evaluation and in OCPCalculator, the authors', fairchem's as a start."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, build_model
from tests.runs import environment, fairchem_alone, run, small_config, write_config

MODES = ["validate", "predict", "run-relaxations"]


def evaluation_config(trained, tmp_path, **model):
    """No training set, no DeNS block, no schedule: what somebody has who only got a checkpoint."""
    config = small_config(trained.data, model={**SMALL_EQUIFORMER, **model})
    config["dataset"] = {
        "val": {"src": str(trained.data / "val")},
        "test": {"src": str(trained.data / "val")},
        "relax": {"src": str(trained.data / "relax")},
    }
    config["task"] = {
        "relaxation_steps": 2, "write_pos": True, "prediction_dtype": "float32",
        "relax_opt": {"maxstep": 0.04, "memory": 50, "damping": 1.0, "alpha": 70.0,
                      "traj_dir": str(tmp_path / "trajectories")},
    }  # fmt: skip
    config["optim"] = {"batch_size": 3, "eval_batch_size": 3, "num_workers": 0}
    return config


@pytest.mark.parametrize("mode", MODES)
def test_evaluation_without_a_training_set(trained, tmp_path, mode):
    config = write_config(tmp_path / "c.yml", evaluation_config(trained, tmp_path))
    results = []
    for name in ("checkpoint", "best_checkpoint"):
        folder = tmp_path / name
        folder.mkdir()
        checkpoint = getattr(trained, name)
        log = run(mode, config, "--checkpoint", checkpoint, cwd=folder).stdout
        shutil.rmtree(tmp_path / "trajectories", ignore_errors=True)
        if mode == "validate":
            results.append(re.findall(r"forces_mae: ([\d.]+)", log)[-1])
        else:
            (file,) = folder.glob("results/*/*.npz")
            content = np.load(file)
            results.append(content["energy" if mode == "predict" else "pos"])
    # best_checkpoint.pt is the last epoch's here and holds averaged weights; checkpoint.pt holds
    # them beside the plain ones
    if mode == "validate":
        assert results[0] == results[1]
    else:
        assert np.allclose(results[0], results[1], atol=1e-4)


def test_bare_ocp_calculator_uses_averaged_weights(trained, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", BARE_CALCULATOR, str(trained.checkpoint),
         str(trained.best_checkpoint)],
        cwd=tmp_path, env=fairchem_alone(), capture_output=True, text=True, check=True,
        timeout=300,
    )  # fmt: skip
    first, best, plain = (float(line) for line in done.stdout.split()[-3:])
    assert first == pytest.approx(best, abs=1e-4)
    assert abs(first - plain) > 1e-3, "the plain and the averaged weights should differ"


BARE_CALCULATOR = """
import sys, torch
from ase.build import fcc111
from fairchem.core import OCPCalculator
assert "dens_ocp" not in sys.modules
atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0)
atoms.rattle(0.1, seed=0)
energies = []
without_average = torch.load(sys.argv[1], weights_only=False)
without_average.pop("ema")
torch.save(without_average, "plain.pt")
for path in [*sys.argv[1:], "plain.pt"]:
    atoms.calc = OCPCalculator(checkpoint_path=path, cpu=True, seed=0)
    energies.append(atoms.get_potential_energy())
    assert atoms.get_forces().shape == (8, 3)
    model = atoms.calc.trainer.model
    assert not model.training
print(*energies, sep="\\n")
"""


def test_official_checkpoint(shared, trained, tmp_path):
    """An authors-style file: its names, its normalizers, its prediction for its batch."""
    reference = shared / "reference"
    path = reference / "official_style_checkpoint.pt"
    checkpoint = torch.load(path, weights_only=False)
    config = evaluation_config(trained, tmp_path)
    config["model"] = {"name": "equiformer_v2_dens", **checkpoint["config"]["model_attributes"]}
    yml = write_config(tmp_path / "c.yml", config)
    for mode in MODES:
        run(mode, yml, "--checkpoint", path, cwd=tmp_path)
    script = tmp_path / "predict.py"
    script.write_text(OFFICIAL_PREDICTION)
    subprocess.run(
        [sys.executable, str(script), str(reference), str(trained.data)], cwd=tmp_path, check=True,
        env=environment(), timeout=300,
    )  # fmt: skip


OFFICIAL_PREDICTION = """
import sys, torch
from contextlib import nullcontext
from dens_ocp.relaxation import repeatable_frames as edge_frames
from torch_geometric.data import Batch
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import setup_imports
setup_imports()
import dens_ocp
path = sys.argv[1] + "/official_style_checkpoint.pt"
config = torch.load(path, weights_only=False)["config"]
trainer = registry.get_trainer_class("denoising_forces")(
    task={}, model={"name": config["model"], **config["model_attributes"]},
    outputs=config["outputs"],
    dataset={}, optimizer={}, loss_functions=[{"energy": {"fn": "mae", "coefficient": 1}}],
    evaluation_metrics={"primary_metric": "energy_mae"}, identifier="", local_rank=0,
    is_debug=True, cpu=True, inference_only=True)
trainer.load_checkpoint(path, inference_only=True)
expected = torch.load(sys.argv[1] + "/official_style_checkpoint_prediction.pt", weights_only=False)
batch = Batch(**torch.load(sys.argv[1] + "/equiformer_v2_dens.pt", weights_only=False)["batch"])
# the authors' edge frames are random: theirs here, not those that follow from the geometry
edge_frames.repeatable = lambda *_: nullcontext()
torch.manual_seed(expected["seed_before_forward"])
prediction = trainer.predict(batch, per_image=False, disable_tqdm=True)
for name in ("energy", "forces"):
    ours, theirs = prediction[name].reshape(-1), expected[name].reshape(-1)
    error = ((ours - theirs).abs().max() / theirs.abs().max()).item()
    assert error < 1e-5, (name, error)
"""


def stock_model(kind):
    """fairchem's own models with the small sizes, flat and hydra."""
    source = SMALL_ESCN if kind.startswith("escn") else SMALL_EQUIFORMER
    options = {name: value for name, value in source.items() if name != "name"}
    if kind == "escn_flat":
        return {"name": "escn", **options}
    if kind == "eqv2_flat":
        return {"name": "equiformer_v2", **options}
    backbone = {"eqv2_hydra": "equiformer_v2_backbone", "escn_hydra": "escn_backbone"}[kind]
    heads = {
        "eqv2_hydra": ("equiformerV2_scalar_head", "equiformerV2_vector_head"),
        "escn_hydra": ("escn_energy_head", "escn_force_head"),
    }[kind]
    return {
        "name": "hydra", "pass_through_head_outputs": True,
        "backbone": {"model": backbone, **options},
        "heads": {"energy": {"module": heads[0]}, "forces": {"module": heads[1]}},
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["eqv2_flat", "eqv2_hydra", "escn_flat", "escn_hydra"])
def test_fine_tuning_from_a_stock_checkpoint(trained, tmp_path, kind):
    stock = small_config(trained.data, model=stock_model(kind), dens=None, max_epochs=1)
    stock |= {"trainer": "equiformerv2_forces"}
    # fairchem leaves a checkpoint only at multiples of eval_every
    stock["optim"]["checkpoint_every"] = 4
    start_folder, folder = tmp_path / "stock", tmp_path / "dens"
    start_folder.mkdir(), folder.mkdir()
    path = write_config(tmp_path / "stock.yml", stock)
    run("train", path, cwd=start_folder)
    (start,) = start_folder.glob("checkpoints/*/checkpoint.pt")

    source = SMALL_ESCN if kind.startswith("escn") else SMALL_EQUIFORMER
    config = write_config(
        tmp_path / "dens.yml", small_config(trained.data, model=source, max_epochs=1)
    )
    done = run("train", config, "--checkpoint", start, cwd=folder)
    for word in ("fine-tuning with DeNS, at step 0", "force_embedding, noise_head"):
        assert word in done.stderr + done.stdout
    (result,) = folder.glob("checkpoints/*/checkpoint.pt")
    assert torch.load(result, weights_only=False)["step"] == 4

    # everything the start has is there at step 0, with its averaged values
    from dens_ocp.models import checkpoint_states
    from dens_ocp.models.parameter_names import is_dens, translated

    content = torch.load(start, weights_only=False)
    model = build_model(source)
    fitted = checkpoint_states.fit(model, content["state_dict"], str(start))
    assert fitted.initialised and all(is_dens(name) for name in fitted.initialised)
    averaged = checkpoint_states.averaged(model, fitted, content["ema"])
    plain = {translated(name): value for name, value in content["state_dict"].items()}
    changed = [
        name for name, value in plain.items() if not torch.equal(value, averaged.state_dict[name])
    ]
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert changed and set(changed) <= trainable and not any(map(is_dens, changed))


def test_training_from_best_checkpoint_keeps_averaging(trained, tmp_path):
    """fairchem drops the average for good."""
    config = write_config(tmp_path / "c.yml", small_config(trained.data, max_epochs=1))
    run("train", config, "--checkpoint", trained.best_checkpoint, cwd=tmp_path)
    (result,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
    assert torch.load(result, weights_only=False)["ema"] is not None


def broken(trained, tmp_path, kind):
    path = tmp_path / "broken.pt"
    if kind == "missing":
        return tmp_path / "nothing.pt"
    if kind == "half":
        content = trained.checkpoint.read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "other":
        torch.save({"weights": torch.zeros(3)}, path)
    else:
        return trained.checkpoint
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ["does not exist", "--checkpoint"]),
        ("half", ["damaged"]),
        ("text", ["damaged"]),
        ("other", ["no state_dict"]),
        (
            "architecture",
            [
                "another architecture",
                "sphere_embedding.weight",
                "(90, 8)",
                "(90, 16)",
                "or repeat --model.sphere_channels=8",
            ],
        ),
        ("layers", ["another architecture", "blocks.2.", "or repeat --model.num_layers=2"]),
    ],
)
def test_bad_checkpoints(trained, tmp_path, kind, words):
    model = {"architecture": {"sphere_channels": 16}, "layers": {"num_layers": 3}}.get(kind, {})
    config = write_config(tmp_path / "c.yml", evaluation_config(trained, tmp_path, **model))
    done = run(
        "validate",
        config,
        "--checkpoint",
        broken(trained, tmp_path, kind),
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    for word in words:
        assert word in line
    assert "Traceback" not in done.stderr
