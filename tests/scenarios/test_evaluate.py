"""``dens-ocp evaluate``: from a checkpoint to scores and files; killed and restarted."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from dens_ocp.tools.cli import main
from tests.lmdbs import write_is2re, write_s2ef
from tests.runs import dens_ocp, environment

SPLITS = ("id", "ood")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    """Two splits, S2EF and IS2RE, with labels."""
    folder = tmp_path_factory.mktemp("evaluate")
    for number, split in enumerate(SPLITS):
        write_s2ef(folder / "s2ef" / split, 5, seed=10 + number)
        write_is2re(folder / "is2re" / split, 4, seed=20 + number)
    path = folder / "evaluate.yml"
    path.write_text(
        yaml.safe_dump(
            {
                "evaluation": {
                    "board": "OC22",
                    "s2ef": {split: str(folder / "s2ef" / split) for split in SPLITS},
                    "is2re": {split: str(folder / "is2re" / split) for split in SPLITS},
                },
                "task": {
                    "relaxation_steps": 6,
                    "relaxation_fmax": 0.02,
                    "relax_opt": {"maxstep": 0.05, "memory": 50, "damping": 1.0, "alpha": 70.0},
                },
                "optim": {"eval_batch_size": 2},
            }
        )
    )
    return path


def command(trained, config: Path, out: Path, *more: str) -> list[str]:
    checkpoint = str(trained.best_checkpoint)
    return ["evaluate", checkpoint, "--config-yml", str(config), "--out", str(out), "--cpu", *more]


@pytest.fixture(scope="module")
def evaluated(trained, config) -> Path:
    """An evaluation that was not disturbed."""
    out = config.parent / "whole"
    dens_ocp(*command(trained, config, out, "--at-a-time", "2"), cwd=config.parent)
    return out


def results(out: Path) -> dict[str, bytes]:
    """Every file that an evaluation is for."""
    patterns = ("predictions/*", "relaxations/*/*.npz", "relaxations/*/*/*.traj", "scores.*",
                "submission/*")  # fmt: skip
    return {
        str(path.relative_to(out)): path.read_bytes()
        for pattern in patterns
        for path in sorted(out.glob(pattern))
    }


def test_everything_is_there(evaluated, config, capsys):
    found = set(results(evaluated))
    assert {"scores.txt", "scores.json", "scores.tex"} <= found
    assert {f"submission/{task}.npz" for task in ("s2ef", "is2re", "is2rs")} <= found
    for split in SPLITS:
        assert f"predictions/{split}.npz" in found
        assert sum(name.startswith(f"relaxations/{split}/trajectories/") for name in found) == 4
    description = json.loads((evaluated / "evaluation.json").read_text())
    assert description["board"] == "OC22" and set(description["splits"]) == set(SPLITS)
    assert (evaluated / "report" / "index.html").is_file()
    # the strict checker, against the data
    for task, kind in (("s2ef", "s2ef"), ("is2re", "is2re"), ("is2rs", "is2re")):
        data = [f"--lmdb={split}={config.parent / kind / split}" for split in SPLITS]
        file = evaluated / "submission" / f"{task}.npz"
        assert main(["submission", "check", str(file), "--board", "OC22", *data]) == 0
        assert "ok" in capsys.readouterr().out
    with np.load(evaluated / "submission" / "s2ef.npz") as file:
        assert file["id_energy"].dtype == np.float32 and len(file["id_ids"]) == 5


def test_scores_are_those_of_the_score_command(evaluated, config, tmp_path, capsys):
    scores = json.loads((evaluated / "scores.json").read_text())["scores"]
    for task, kind in (("s2ef", "s2ef"), ("is2re", "is2re"), ("is2rs", "is2re")):
        data = [f"--lmdb={split}={config.parent / kind / split}" for split in SPLITS]
        written = tmp_path / f"{task}.json"
        assert main(["score", str(evaluated), "--task", task, "--json", str(written), *data]) == 0
        assert json.loads(written.read_text())["scores"][task] == scores[task]
    capsys.readouterr()


def test_again_nothing_runs_and_nothing_changes(evaluated, trained, config):
    before = results(evaluated)
    written = {path: path.stat().st_mtime_ns for path in evaluated.glob("runs/results/*/*")}
    done = dens_ocp(*command(trained, config, evaluated, "--no-report"), cwd=config.parent)
    assert "4 of 4 runs are done already" in done.stdout
    assert results(evaluated) == before
    assert written == {path: path.stat().st_mtime_ns for path in evaluated.glob("runs/results/*/*")}


def test_other_settings_are_not_mixed_in(evaluated, trained, config):
    before = results(evaluated)
    words = command(trained, config, evaluated, "--task.relaxation_steps=7")
    done = dens_ocp(*words, cwd=config.parent, check=False)
    assert done.returncode == 2
    assert "other settings (task.relaxation_steps: 6 before, 7 now)" in done.stderr
    assert results(evaluated) == before


@pytest.mark.slow
def test_killed_at_random_points_and_restarted(evaluated, trained, config):
    out = config.parent / "killed"
    words = [sys.executable, "-m", "dens_ocp.tools.cli",
             *command(trained, config, out, "--at-a-time", "2", "--no-report")]  # fmt: skip
    chance = random.Random(0)
    for group in (False, True, True):
        process = subprocess.Popen(
            words, cwd=config.parent, env=environment(), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(chance.uniform(8, 16))
        if group:  # with the runs that it started
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
    done = dens_ocp(*words[3:], cwd=config.parent)
    assert "written:" in done.stdout
    assert results(out) == results(evaluated)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--only", "predict-ods"], "--only: there is no run 'predict-ods'"),
        (["--evaluation.s2ef.idd=x"], "did you mean 'id'"),
        (["--evaluation.s2ef.id=nowhere"], "nowhere does not exist"),
        (["--at-a-time", "0"], "--at-a-time: 0"),
        (["--collect"], "4 of 4 runs are not done"),
    ],
)
def test_mistakes(trained, config, tmp_path, capsys, more, words):
    assert main(command(trained, config, tmp_path / "out", *more)) == 2
    assert words in capsys.readouterr().err
