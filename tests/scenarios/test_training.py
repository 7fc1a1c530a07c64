"""Training through the real CLI: ways in, resume, ranks, loggers, what a run leaves."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, build_model
from tests.lmdbs import s2ef_records, write_lmdb
from tests.runs import environment, fairchem_alone, logged, run, small_config, write_config


def losses(log: str) -> list[float]:
    """The losses of the training steps, as printed."""
    return [float(value) for value in re.findall(r" step \d+ of .*, loss ([^,]+),", log)]


def state(folder, name="checkpoint.pt"):
    (path,) = folder.glob(f"checkpoints/*/{name}")
    return torch.load(path, weights_only=False)


def test_a_run_leaves_checkpoints_and_dens_metrics(trained):
    checkpoint = torch.load(trained.checkpoint, weights_only=False)
    # eval_every is an epoch of 4 steps; the last step is checkpointed in any case
    assert checkpoint["step"] == 8 and checkpoint["epoch"] == 2.0
    assert trained.best_checkpoint.is_file()
    assert len(losses(trained.log)) == 8
    for name in ("dens_noise_mae", "dens_forces_mae", "dens_energy_mae", "dens_corrupted_atoms",
                 "loss_noise", "loss_forces", "loss_energy", "forces_mae"):  # fmt: skip
        assert any(name in line for line in logged(trained.config.parent))
    assert "LMDB does not contain edge index" not in trained.log
    assert not list(trained.checkpoint.parent.glob(".*")), "a temporary file was left"


def test_last_step_is_saved_and_validated_whatever_eval_every_says(data, tmp_path):
    config = small_config(data, eval_every=1000, max_epochs=1)
    done = run("train", write_config(tmp_path / "c.yml", config), cwd=tmp_path)
    assert state(tmp_path)["step"] == 4
    assert "Evaluating on val" in done.stdout
    assert list(tmp_path.glob("checkpoints/*/best_checkpoint.pt"))


def test_two_runs_at_once_are_two_runs(data, tmp_path):
    """fairchem gives both the same name within 128 s, and the second resumes the first."""
    config = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    for _ in range(2):
        assert len(losses(run("train", config, cwd=tmp_path).stdout)) == 4
    assert len(list(tmp_path.glob("checkpoints/*/checkpoint.pt"))) == 2


@pytest.mark.parametrize("stop_at", [3, 4])
def test_resume_from_any_step(data, tmp_path, stop_at):
    """Same losses and learning rates as uninterrupted, from the middle of an epoch and its end.
    (Dropout is off; the random edge frames move results by rounding.)"""
    config = write_config(
        tmp_path / "c.yml", small_config(data, checkpoint_every=stop_at, eval_every=1000)
    )
    whole = run("train", config, "--timestamp-id", "whole", cwd=tmp_path).stdout
    # a run that is killed after the checkpoint of step `stop_at`
    killed = subprocess.Popen(
        [sys.executable, "-c", KILL_AFTER_FIRST_SAVE, "--mode", "train",
         "--config-yml", str(config), "--cpu", "--print-every", "1",
         "--run-dir", str(tmp_path), "--timestamp-id", "parts"],
        cwd=tmp_path, env=environment(), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    first = killed.communicate()[0]
    assert killed.returncode == 9
    second = run("train", config, "--timestamp-id", "parts", cwd=tmp_path).stdout
    assert "resuming job from this checkecpoint" in second
    assert len(losses(second)) == 8 - stop_at
    assert losses(first)[:stop_at] + losses(second) == pytest.approx(losses(whole), rel=2e-3)
    whole, parts = ([line["lr"] for line in logged(tmp_path, name)] for name in ("whole", "parts"))
    assert parts[-(8 - stop_at) :] == pytest.approx(whole[stop_at:], rel=1e-12)


KILL_AFTER_FIRST_SAVE = """
import os, sys
import dens_ocp.trainer as module
from dens_ocp.tools.cli import fairchem_main
save = module.DeNSTrainer.save
def save_and_die(self, *args, **kwargs):
    save(self, *args, **kwargs)
    sys.stdout.flush()
    os._exit(9)
module.DeNSTrainer.save = save_and_die
fairchem_main(sys.argv[1:])
"""


def test_two_ranks_draw_differently_and_stay_equal(data, tmp_path):
    config = write_config(tmp_path / "c.yml", small_config(data, batch_size=2, max_epochs=1))
    script = tmp_path / "ranks.py"
    script.write_text(RECORD_RANKS)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(script), str(config), str(tmp_path)],
        check=True, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=300,
    )  # fmt: skip
    zero, one = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=False) for rank in (0, 1))
    assert len(zero["noise"]) == 3
    for ours, theirs in zip(zero["noise"], one["noise"], strict=True):
        assert ours.shape != theirs.shape or not torch.equal(ours, theirs)
    for name, parameter in zero["parameters"].items():
        assert torch.equal(parameter, one["parameters"][name]), name


RECORD_RANKS = """
import sys, torch
import dens_ocp
import dens_ocp.trainer as module
from fairchem.core.common import distutils
from fairchem.core.common.utils import build_config, new_trainer_context
from fairchem.core.common.flags import flags

args, overrides = flags.get_parser().parse_known_args(
    ["--mode", "train", "--config-yml", sys.argv[1], "--cpu", "--num-gpus", "2",
     "--run-dir", sys.argv[2]])
config = build_config(args, overrides)
noise = []
plan_of = module.DeNSTrainer.step_plan
def recording(trainer, batch):
    plan = plan_of(trainer, batch)
    noise.append(plan.corruption.noise_vec)
    return plan
module.DeNSTrainer.step_plan = recording
with new_trainer_context(config=config) as context:
    context.task.setup(context.trainer)
    context.task.run()
    torch.save({"noise": noise, "parameters": dict(context.trainer.model.named_parameters())},
               f"{sys.argv[2]}/rank{distutils.get_rank()}.pt")
"""


def test_two_ranks_learn_what_one_learns_from_the_union_batch(data, tmp_path):
    """p = 0, so that the draw does not depend on the rank; SGD, as Adam blows rounding up."""
    parameters = []
    for number, ranks in ((4, "1"), (2, "2")):
        folder = tmp_path / ranks
        folder.mkdir()
        config = small_config(
            data, dens={"p": 0, "sigma": 0.1}, batch_size=number, max_epochs=1, ema_decay=None,
            optimizer="SGD", optimizer_params={}, lr_initial=0.01,
        )  # fmt: skip
        run("train", write_config(folder / "c.yml", config), "--num-gpus", ranks, cwd=folder)
        parameters.append(state(folder)["state_dict"])
    together, apart = parameters
    moved = 0.0
    start = build_model(SMALL_EQUIFORMER).state_dict()
    for name, value in together.items():
        if value.is_floating_point():
            assert torch.allclose(value, apart[name], atol=1e-4), name
            moved = max(moved, (value - start[name.removeprefix("module.")]).abs().max().item())
    assert moved > 1e-2, "nothing was learned"


def test_graph_parallel_equals_one_process(data, tmp_path):
    config = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    alone = run("train", config, cwd=tmp_path).stdout
    split = run("train", config, "--num-gpus", "2", "--gp-gpus", "2", cwd=tmp_path).stdout
    assert "noise MAE" in split
    assert losses(split) == pytest.approx(losses(alone), rel=1e-2)


def test_escn_trains(data, tmp_path):
    config = write_config(tmp_path / "c.yml", small_config(data, model=SMALL_ESCN, max_epochs=1))
    assert len(losses(run("train", config, cwd=tmp_path).stdout)) == 4


@pytest.mark.parametrize("trainer", ["dens", "denoising_forces"])
def test_short_names_also_on_two_ranks(data, tmp_path, trainer):
    config = small_config(data, max_epochs=1) | {"trainer": trainer}
    path = write_config(tmp_path / "c.yml", config)
    assert losses(run("train", path, cwd=tmp_path).stdout)
    assert losses(run("train", path, "--num-gpus", "2", cwd=tmp_path, fresh=True).stdout)


def test_stock_script_with_the_dotted_name(data, tmp_path):
    """fairchem-core's own entry point, in a process that does not import dens_ocp."""
    path = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    done = subprocess.run(
        [sys.executable, "-c", "from fairchem.core._cli import main; main()", "--mode", "train",
         "--config-yml", str(path), "--cpu", "--print-every", "1", "--run-dir", str(tmp_path)],
        cwd=tmp_path, env=fairchem_alone(), capture_output=True, text=True, check=True,
        stdin=subprocess.DEVNULL, timeout=300,
    )  # fmt: skip
    assert len(losses(done.stdout)) == 4 and "noise MAE" in done.stdout


def test_official_yaml_form(data, tmp_path):
    """Flat model options and the authors' three keys of optim."""
    config = small_config(
        data, dens=None, max_epochs=1, use_denoising_pos=True, denoising_pos_coefficient=10,
        loss_energy="mae", loss_force="l2mae",
        denoising_pos_params={"prob": 1.0, "fixed_noise_std": True, "std": 0.1, "num_steps": 50,
                              "std_low": 0.01, "std_high": 0.5, "corrupt_ratio": 0.5},
    )  # fmt: skip
    config["trainer"] = "denoising_forces"
    config["model"] |= {"use_tp_reparam": False, "use_energy_lin_ref": False}
    run("train", write_config(tmp_path / "c.yml", config), cwd=tmp_path)
    assert [line["dens_structures"] for line in logged(tmp_path)] == [1.0] * 4


def test_wandb_offline_and_without_a_key(data, tmp_path):
    config = small_config(data, max_epochs=1) | {"logger": {"name": "wandb", "project": "test"}}
    path = write_config(tmp_path / "c.yml", config)
    home = {"HOME": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path / "wandb-config")}
    done = run("train", path, cwd=tmp_path, check=False, **home)
    assert done.returncode == 2
    for word in ("WANDB_MODE=offline", "wandb login", "tensorboard"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "checkpoints").exists()
    offline = run("train", path, cwd=tmp_path, WANDB_MODE="offline", **home)
    assert len(losses(offline.stdout)) == 4
    assert list(tmp_path.glob("logs/wandb/**/offline-run-*"))


def test_normalizers_and_references_by_fairchems_fit(data, tmp_path):
    config = small_config(data, max_epochs=1)
    config["dataset"]["train"]["transforms"] = {
        "element_references": {"fit": {"targets": ["energy"], "batch_size": 4}},
        "normalizer": {
            "fit": {"targets": {"energy": {"mean": 0.0}, "forces": {"mean": 0.0}}, "batch_size": 4}
        },
    }
    run("train", write_config(tmp_path / "c.yml", config), cwd=tmp_path)
    checkpoint = state(tmp_path)
    assert set(checkpoint["normalizers"]) == {"energy", "forces"}
    assert set(checkpoint["elementrefs"]) == {"energy"}


def test_oc22_data_set_with_linear_references(tmp_path):
    """``lin_ref``, which fairchem's oc22_lmdb reads and ignores, is subtracted."""
    records = s2ef_records(8)
    for record in records:
        record.oc22, record.nads = 1, 1
    write_lmdb(tmp_path / "train" / "data.lmdb", records)
    coefficients = np.full(100, 0.25)
    np.savez(tmp_path / "references.npz", coeff=coefficients)
    config = small_config(tmp_path, max_epochs=1, load_balancing=None)
    del config["dataset"]["val"]
    config["dataset"]["train"] |= {
        "format": "oc22_lmdb",
        "lin_ref": str(tmp_path / "references.npz"),
    }
    path = write_config(tmp_path / "c.yml", config)
    run("train", path, cwd=tmp_path)
    assert torch.equal(
        state(tmp_path)["elementrefs"]["energy"]["element_references"],
        torch.full((100,), 0.25).double(),
    )
    (tmp_path / "plain").mkdir()
    del config["dataset"]["train"]["lin_ref"]
    plain = write_config(tmp_path / "plain.yml", config)
    run("train", plain, cwd=tmp_path / "plain")
    with_references, without = (logged(each)[0] for each in (tmp_path, tmp_path / "plain"))
    # a quarter of an eV per atom, times 9 atoms
    assert abs(with_references["loss_energy"] - without["loss_energy"]) > 0.01


def test_two_multi_rank_runs_at_once(data, tmp_path):
    """torch's default rendezvous is one port, at which both would meet."""
    config = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    command = [
        sys.executable, "-m", "dens_ocp.tools.cli", "main", "--mode", "train",
        "--config-yml", str(config), "--cpu", "--print-every", "1",
        "--num-gpus", "2", "--run-dir", str(tmp_path),
    ]  # fmt: skip
    runs = [
        subprocess.Popen(
            command, cwd=tmp_path, env=environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in runs:
        log = process.communicate(timeout=300)[0]
        assert process.returncode == 0, log[-3000:]
        assert len(losses(log)) == 2
