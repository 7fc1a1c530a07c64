"""``dens-ocp doctor`` in environments that really are broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import environment


def broken(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """``python -m dens_ocp.tools.cli`` with ``folder`` in front of the installed packages."""
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([str(folder), variables["PYTHONPATH"]])
    return subprocess.run(
        [sys.executable, "-m", "dens_ocp.tools.cli", *arguments], env=variables, cwd=folder.parent,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def module(folder: Path, name: str, code: str) -> Path:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    return folder


def distribution(folder: Path, name: str, version: str) -> Path:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return folder


def problems(done: subprocess.CompletedProcess) -> dict[str, str]:
    """Check -> its line and what to do."""
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    return {
        line[9:30].strip(): line + "\n" + lines[number + 1]
        for number, line in enumerate(lines)
        if line.startswith("problem ")
    }


@pytest.mark.slow
def test_torch_scatter_is_built_for_another_torch(tmp_path):
    stub = module(
        tmp_path / "stub", "torch_scatter", "raise OSError('undefined symbol: _ZNK5torch')"
    )
    done = broken(stub, "doctor")
    found = problems(done)
    assert done.returncode == 2
    assert "import torch_scatter" in found and "import fairchem.core" in found
    assert "pip uninstall torch-scatter" in found["import torch_scatter"]
    assert "--no-build-isolation" in found["import torch_scatter"]
    # the others say where to look, in one line
    for command in (
        ["main", "--mode", "train", "--config-yml", __file__],
        ["demo"],
        ["plan", "x.yml", "--gpus", "1"],
    ):
        other = broken(stub, *command)
        assert other.returncode == 2 and other.stderr.count("\n") == 1
        assert "undefined symbol" in other.stderr and "dens-ocp doctor" in other.stderr


@pytest.mark.slow
def test_an_extension_that_kills_the_process(tmp_path):
    stub = module(tmp_path / "stub", "torch_sparse", "import os; os.kill(os.getpid(), 11)")
    done = broken(stub, "doctor")
    found = problems(done)
    assert done.returncode == 2
    assert "SIGSEGV" in found["import torch_sparse"]
    assert "torch-sparse" in found["import torch_sparse"].splitlines()[1]
    assert "import ase" not in found  # what comes after it was tried


@pytest.mark.slow
@pytest.mark.parametrize(("name", "version"), [("ase", "3.22.1"), ("e3nn", "0.4.4")])
def test_versions_that_break_fairchem(tmp_path, name, version):
    done = broken(distribution(tmp_path / "other", name, version), "doctor")
    found = problems(done)
    assert done.returncode == 2 and list(found) == [name], done.stdout + done.stderr
    assert version in found[name]
    specifier = {"ase": ">=3.25", "e3nn": ">=0.5"}[name]
    assert f'pip install "{name}{specifier}' in found[name].splitlines()[1]
    assert f"warning  {name}" in done.stdout  # two versions on sys.path


def test_other_programs_get_the_error_itself(monkeypatch):
    from fairchem.core.common.registry import Registry

    from dens_ocp import registration

    def failing():
        raise ImportError("broken")

    asked = classmethod(lambda cls, name, mapping_name: name)
    monkeypatch.setattr(Registry, "get_class", asked)
    monkeypatch.setattr(registration, "register", failing)
    registration.prepare()
    for _ in range(2):
        with pytest.raises(ImportError, match="broken"):
            Registry.get_model_class("equiformer_v2_dens")
    monkeypatch.setattr(registration, "register", lambda: None)
    assert Registry.get_model_class("equiformer_v2_dens") == "equiformer_v2_dens"
    assert Registry.__dict__["get_class"] is asked
