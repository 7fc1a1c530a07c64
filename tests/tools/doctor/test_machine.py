"""Programs on PATH, with real scripts; and the logger's key."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING
from dens_ocp.tools.doctor.machine import check_logger, check_scripts, check_slurm

BIN = Path(sys.executable).parent


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


@pytest.fixture
def path(monkeypatch):
    """Sets PATH to folders."""
    return lambda *folders: monkeypatch.setenv("PATH", os.pathsep.join(map(str, folders)))


def test_our_scripts_first(path):
    path(BIN)
    assert [each.status for each in check_scripts()] == [OK, OK]


def test_stock_fairchem_first(path, tmp_path):
    script(tmp_path / "bin", "fairchem", "#!/bin/sh\n# from fairchem.core._cli import main\n")
    path(tmp_path / "bin", BIN)
    fairchem, ours = check_scripts()
    assert fairchem.status == WARNING and str(tmp_path) in fairchem.text
    assert f'PATH="{BIN}' in fairchem.fix and ours.status == OK


def test_scripts_of_another_environment_or_none(path, tmp_path):
    script(
        tmp_path / "bin", "fairchem", "#!/bin/sh\n# from dens_ocp.tools.cli import fairchem_main\n"
    )
    path(tmp_path / "bin")
    other, missing = check_scripts()
    assert "another environment" in other.text and "not on PATH" in missing.text


def test_slurm(path, tmp_path, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    path(tmp_path)
    assert [each.status for each in check_slurm(wanted=False)] == [OK]
    assert [each.status for each in check_slurm(wanted=True)] == [WARNING]
    script(tmp_path, "sbatch", "#!/bin/sh\necho slurm-wlm 23.11.4\n")
    (found,) = check_slurm(wanted=True)
    assert found.status == OK and "slurm-wlm 23.11.4" in found.text
    script(tmp_path, "sbatch", "#!/bin/sh\necho no configuration >&2; exit 1\n")
    (found,) = check_slurm(wanted=True)
    assert found.status == WARNING and "no configuration" in found.text


def test_logger(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setattr(sys, "stdin", open(os.devnull))
    monkeypatch.chdir(tmp_path)
    (found,) = check_logger("wandb", from_config=True)
    assert found.status == PROBLEM and "wandb login" in found.fix
    (found,) = check_logger("wandb", from_config=False)
    assert found.status == WARNING
    monkeypatch.setenv("WANDB_MODE", "offline")
    (found,) = check_logger({"name": "wandb"}, from_config=True)
    assert found.status == OK and "offline" in found.text
    (found,) = check_logger("tensorboard", from_config=True)
    assert found.status == OK
