"""``dens-ocp ablate`` with real runs: stopped, gone on, finished, collected."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.runs import dens_ocp, environment, small_config, write_config, write_data

pytestmark = pytest.mark.slow


def write_plan(folder):
    data = write_data(folder / "data")
    write_config(folder / "config.yml", small_config(data, checkpoint_every=1))
    plan = {
        "base": "config.yml",
        "baseline": "no_dens",
        "seeds": [0],
        "variants": {"no_dens": {"set": {"optim.dens.enabled": False}}, "dens": None},
    }
    (folder / "plan.yml").write_text(yaml.safe_dump(plan, sort_keys=False))


def test_stopped_and_gone_on(tmp_path):
    write_plan(tmp_path)
    command = ["ablate", "plan.yml", "--out", "out", "--cpu", "--print-every", "1"]
    first = subprocess.Popen(
        [sys.executable, "-m", "dens_ocp.tools.cli", *command], cwd=tmp_path, env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    checkpoint = tmp_path / "out/checkpoints/dens-seed0/checkpoint.pt"
    deadline = time.monotonic() + 300
    while not checkpoint.is_file():
        assert first.poll() is None and time.monotonic() < deadline, first.communicate()[0].decode()
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGTERM)
    first.communicate(timeout=60)
    scores = tmp_path / "out/evaluations/no_dens-seed0/scores.json"
    before = scores.stat().st_mtime_ns
    trained = (tmp_path / "out/checkpoints/no_dens-seed0/checkpoint.pt").stat().st_mtime_ns
    done = dens_ocp(*command, cwd=tmp_path)
    assert "1 of 2 runs are done already" in done.stderr + done.stdout
    # what was finished is not repeated, what was stopped goes on
    assert scores.stat().st_mtime_ns == before
    assert (tmp_path / "out/checkpoints/no_dens-seed0/checkpoint.pt").stat().st_mtime_ns == trained
    log = (tmp_path / "out/output/dens-seed0.log").read_text()
    assert "checkpoint.pt" in log
    rows = json.loads((tmp_path / "out/table.json").read_text())["rows"]
    assert [row["seeds"] for row in rows] == [1, 1]
    for name in ("table.txt", "table.tex", "table.png", "table.svg"):
        assert (tmp_path / "out" / name).stat().st_size > 100
    listed = dens_ocp("ablate", "plan.yml", "--out", "out", "--list", cwd=tmp_path).stdout
    assert listed.split("\n")[:2] == ["no_dens-seed0: done", "dens-seed0: done"]
    table = (tmp_path / "out/table.txt").read_text()
    again = dens_ocp("ablate", "plan.yml", "--out", "out", "--collect-only", cwd=tmp_path)
    assert table in again.stdout
    # another setting is not mixed in
    plan = yaml.safe_load((tmp_path / "plan.yml").read_text())
    plan["set"] = {"optim.lr_initial": 0.5}
    (tmp_path / "plan.yml").write_text(yaml.safe_dump(plan, sort_keys=False))
    refused = dens_ocp(*command, cwd=tmp_path, check=False)
    assert refused.returncode == 2 and "lr_initial: 0.001 before, 0.5 now" in refused.stderr
