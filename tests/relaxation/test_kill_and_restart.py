"""Evaluations through the real CLI, killed and restarted: the bytes of the uninterrupted run."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.relaxation import relaxations
from tests.runs import environment, write_config

pytestmark = pytest.mark.slow


def command(config, checkpoint, run_dir, *arguments):
    return [
        sys.executable, "-m", "dens_ocp.tools.cli", "main", "--mode", "run-relaxations", "--cpu",
        "--config-yml", config, "--checkpoint", checkpoint, "--run-dir", run_dir,
        "--timestamp-id", "run", *arguments,
    ]  # fmt: skip


def finish(config, checkpoint, run_dir, *arguments):
    done = subprocess.run(
        command(config, checkpoint, run_dir, *arguments), cwd=run_dir, env=environment(),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def kill_when(config, checkpoint, run_dir, reached):
    """Start the run, and SIGKILL it as soon as ``reached()``."""
    with open(run_dir / "killed.log", "w") as log:
        process = subprocess.Popen(
            command(config, checkpoint, run_dir), cwd=run_dir, env=environment(),
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while not reached():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def metrics_in(log):
    (line,) = set(re.findall(r"Relaxations of \d+ systems: .*", log))
    return line


def test_killed_relaxations(systems, tmp_path):
    folders = {}
    for name in ("whole", "killed"):
        folders[name] = tmp_path / name
        folders[name].mkdir()
    traj = {name: folder / "t" for name, folder in folders.items()}
    settings = {
        name: relaxations.config(systems, traj[name], 2, relaxation_steps=30) for name in folders
    }
    checkpoint = tmp_path / "checkpoint.pt"
    model = relaxations.trainer_of(settings["whole"], tmp_path / "x").model
    torch.save({"state_dict": model.state_dict(), "config": {}}, checkpoint)
    config = {name: write_config(tmp_path / f"{name}.yml", settings[name]) for name in folders}
    whole = metrics_in(finish(config["whole"], checkpoint, folders["whole"]))
    assert whole.startswith("Relaxations of 5 systems: is2rs_")

    def finished():
        return {path.stem for path in traj["killed"].glob("*.traj")}

    run = (config["killed"], checkpoint, folders["killed"])
    # in the first batch, when its files are open; then in the second
    kill_when(*run, lambda: any(traj["killed"].glob(".2001.traj_*")))
    assert finished() == set() and not list(folders["killed"].rglob("*.npz"))
    kill_when(*run, lambda: any(traj["killed"].glob(".2003.traj_*")))
    assert finished() == {"2000", "2001"}
    # a machine that lost power may leave this
    (traj["killed"] / "2000.traj").write_bytes(b"")

    def results(name):
        return relaxations.contents(traj[name], folders[name] / "results")

    # two ranks go on
    log = finish(*run, "--num-gpus", "2", "--num-nodes", "1")
    assert metrics_in(log) == whole
    assert results("killed") == results("whole") and len(results("whole")) == 7
