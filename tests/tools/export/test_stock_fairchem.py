"""Exported checkpoints in stock fairchem, in processes in which importing dens_ocp raises."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from dens_ocp.tools import cli
from tests.conftest import build_model
from tests.runs import run, small_config, write_config
from tests.tools.export.conftest import MODELS, Original
from tests.tools.export.stock import fairchem, ours, python, without_dens_ocp


@dataclass(frozen=True)
class Pair:
    original: Original
    exported: Path
    config: Path


@pytest.fixture(scope="module", params=MODELS)
def pair(request, originals, tmp_path_factory) -> Pair:
    original = originals[request.param]
    out = tmp_path_factory.mktemp("exported") / f"{request.param}.pt"
    assert cli.main(["export", str(original.checkpoint), str(out)]) == 0
    return Pair(original, out, out.with_suffix(".yml"))


def predictions(folder: Path) -> dict[str, np.ndarray]:
    (file,) = folder.glob("results/*/*_predictions.npz")
    return dict(np.load(file))


def relative(values, expected) -> float:
    return float(np.abs(values - expected).max() / np.abs(expected).max())


def test_predictions(pair, data, tmp_path):
    """fairchem --mode predict of an LMDB: the file equals that of our trainer with the original."""
    found = {}
    overrides = [f"--dataset.test.src={data / 'val'}", "--task.prediction_dtype=float32"]
    for name, program, config, checkpoint in (
        ("stock", fairchem, pair.config, pair.exported),
        ("ours", ours, pair.original.config, pair.original.checkpoint),
    ):
        folder = tmp_path / name
        folder.mkdir()
        extra = ["--dataset.train.src=None"] if name == "ours" else []
        program("predict", config, checkpoint, *overrides, *extra, cwd=folder)
        found[name] = predictions(folder)
    assert list(found["stock"]["ids"]) == list(found["ours"]["ids"]) and len(found["ours"]["ids"])
    assert np.array_equal(found["stock"]["chunk_idx"], found["ours"]["chunk_idx"])
    for name in ("energy", "forces"):
        assert found["ours"][name].dtype == np.float32
        assert relative(found["stock"][name], found["ours"][name]) < 1e-6, name
    assert np.ptp(found["stock"]["energy"]) > 0.1  # eV


CALCULATE = """
import sys, json, torch
from ase.build import fcc111, add_adsorbate
from fairchem.core import OCPCalculator
atoms = fcc111("Cu", (2, 2, 3), vacuum=8.0)
add_adsorbate(atoms, "O", 1.5, "fcc")
atoms.pbc = True
atoms.rattle(0.1, seed=0)
found = []
for path in sys.argv[1:]:
    atoms.calc = OCPCalculator(checkpoint_path=path, cpu=True, seed=0)
    for seed in (0, 1):
        atoms.calc.reset()
        torch.manual_seed(seed)
        found.append([atoms.get_potential_energy(), *atoms.get_forces().ravel().tolist()])
print("found:", json.dumps(found))
"""


def with_random_frames(script: str, *arguments, cwd) -> str:
    """Our calculator with fairchem's random edge frames, not those that follow from geometry."""
    swap = """
from contextlib import nullcontext
from dens_ocp.relaxation import repeatable_frames as edge_frames
edge_frames.repeatable = lambda *_: nullcontext()
"""
    return python(swap + script, *arguments, cwd=cwd)


def calculated(program, *checkpoints, cwd) -> np.ndarray:
    """(checkpoints, 2 seeds, 1 + 3 N): energy and forces."""
    output = program(CALCULATE, *checkpoints, cwd=cwd)
    (line,) = [line for line in output.splitlines() if line.startswith("found: ")]
    return np.array(json.loads(line[7:])).reshape(len(checkpoints), 2, -1)


@pytest.mark.slow
def test_calculator(pair, tmp_path):
    """OCPCalculator: energies and forces are those of the averaged weights; --raw those of the
    last step."""
    original = pair.original
    raw, last, from_best = (tmp_path / f"{name}.pt" for name in ("raw", "last", "from_best"))
    assert cli.main(["export", str(original.checkpoint), str(raw), "--raw"]) == 0
    assert cli.main(["export", str(original.best), str(from_best)]) == 0
    content = torch.load(original.checkpoint, weights_only=False)
    content["ema"] = None
    torch.save(content, last)  # our trainer then has nothing but the last step's weights

    expected = calculated(
        with_random_frames, original.checkpoint, last, original.best, cwd=tmp_path
    )
    found = calculated(without_dens_ocp, pair.exported, raw, from_best, cwd=tmp_path)
    for ours_, stock in zip(expected, found, strict=True):
        for part in (np.s_[:, :1], np.s_[:, 1:]):  # energy, forces
            # with the same random edge frames they differ by the rounding of one addition
            assert relative(stock[part], ours_[part]) < 1e-6
            # with others no more than the original differs from itself
            first, second = ours_[part]
            assert relative(stock[part][1], first) < relative(second, first) + 1e-6
    averaged, of_last_step, _ = found
    assert relative(averaged[0, 1:], of_last_step[0, 1:]) > 1e-3, "the weights should differ"


@pytest.mark.parametrize("mode", ["validate", "run-relaxations", "train"])
def test_other_modes_of_fairchem(pair, data, tmp_path, mode):
    overrides = {
        "validate": [f"--dataset.val.src={data / 'val'}"],
        "run-relaxations": [
            f"--dataset.relax.src={data / 'relax'}", "--task.relaxation_steps=2",
            "--task.write_pos=True", "--task.relax_opt.maxstep=0.04", "--task.relax_opt.memory=50",
            "--task.relax_opt.damping=1.0", "--task.relax_opt.alpha=70.0",
            f"--task.relax_opt.traj_dir={tmp_path / 'trajectories'}",
        ],
        "train": [f"--dataset.train.src={data / 'train'}", "--optim.max_epochs=1",
                  "--optim.checkpoint_every=4"],
    }[mode]  # fmt: skip
    log = fairchem(mode, pair.config, pair.exported, *overrides, cwd=tmp_path)
    if mode == "validate":
        assert "forces_mae: " in log
    elif mode == "run-relaxations":
        (file,) = tmp_path.glob("results/*/relaxed_positions.npz")
        assert np.isfinite(np.load(file)["pos"]).all()
    else:
        (file,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
        assert torch.load(file, weights_only=False)["step"] == 4


def test_start_of_fine_tuning_with_our_trainer(pair, data, tmp_path):
    model = MODELS[pair.exported.stem]
    config = write_config(tmp_path / "c.yml", small_config(data, model=model, max_epochs=1))
    done = run("train", config, "--checkpoint", pair.exported, cwd=tmp_path)
    assert "fine-tuning with DeNS, at step 0" in done.stderr + done.stdout
    (result,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
    assert torch.load(result, weights_only=False)["step"] == 4

    # a new force encoding has no bias, so step 0 predicts what the original does
    from dens_ocp.models.checkpoint_states import fit
    from dens_ocp.tools.export.checkpoint import example_batch, largest_differences
    from dens_ocp.tools.export.source import read_source

    start = build_model(model)
    content = torch.load(pair.exported, weights_only=False)
    start.load_state_dict(fit(start, content["state_dict"], "exported").state_dict)
    original = read_source(pair.original.checkpoint).model
    assert max(largest_differences(original, start, example_batch()).values()) < 1e-6
