"""Versions: one source, and commands that can be pasted."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import requires

from packaging.requirements import Requirement

from dens_ocp.errors import DensError
from dens_ocp.tools.doctor import packages
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding, guarded, refused
from dens_ocp.tools.doctor.machine import judged_extension
from dens_ocp.tools.doctor.packages import try_imports
from tests.conftest import ROOT


def test_requirements_come_from_the_installed_distribution():
    (scipy,) = [line for line in requires("dens-ocp") if line.startswith("scipy")]
    assert Requirement(packages.required("scipy")) == Requirement(scipy)
    assert packages.required("something-else") == "something-else"


def test_no_version_is_repeated_in_the_code():
    project = (ROOT / "pyproject.toml").read_text()
    bounds = re.findall(r'^    "([\w-]+)>=([\d.]+)"', project, flags=re.MULTILINE)
    assert ("ase", "3.25") in bounds
    for path in (ROOT / "src/dens_ocp/tools/doctor").glob("*.py"):
        for name, bound in bounds:
            assert f"{name}>={bound}" not in path.read_text(), (path, name)


def test_commands():
    assert packages.pip_install("scipy<1.17").endswith('-m pip install "scipy<1.17"')
    built = packages.pip_install("torch-scatter>=2.1.2")
    assert "--no-build-isolation --no-deps" in built


def test_all_is_well_here():
    statuses = [each.status for each in packages.check_packages()]
    assert PROBLEM not in statuses and OK in statuses


def test_imports_report_what_is_missing(tmp_path):
    found = try_imports(["json", "no_such_module", "os"])
    assert not found["json"].error and not found["os"].error
    assert found["no_such_module"].missing == "no_such_module"


def test_extensions_without_cuda_matter_where_there_is_a_gpu():
    assert judged_extension("torch-scatter", -1, has_gpu=True).status == PROBLEM
    assert judged_extension("torch-scatter", -1, has_gpu=False).status == OK
    assert "CUDA 12.1" in judged_extension("torch-scatter", 12010, has_gpu=True).text


def test_a_check_that_fails_is_a_problem_and_no_trace():
    def failing():
        yield Finding(OK, "a", "fine")
        raise RuntimeError("boom")

    first, second = guarded("a", failing)
    assert (first.status, second.status) == (OK, PROBLEM) and "boom" in second.text
    problem = refused("dataset.train", DensError("dataset.train.src: x is empty; write it again"))
    assert problem.text == "dataset.train.src: x is empty" and problem.fix == "write it again"


def test_lines_of_pip_check(monkeypatch):
    lines = (
        "fairchem-core 1.10.0 has requirement ase<4, but you have ase 4.0.0.\n"
        "dens-ocp 0.1.0 has requirement ase<3.26, but you have ase 4.0.0.\n"
        "fairchem-core 1.10.0 has requirement torch~=2.4.0, but you have torch 2.13.0+cpu.\n"
        "fairchem-core 1.10.0 has requirement numpy<2.0.0,>=1.26.0, but you have numpy 2.5.5.\n"
        "fairchem-core 1.10.0 requires e3nn, which is not installed.\n"
        "other 1.0 requires something, which is not installed.\n"
    )
    done = subprocess.CompletedProcess([], 1, stdout=lines, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
    found = {each.check: each for each in packages.check_packages()}
    assert found["ase"].status == PROBLEM and found["ase"].fix.endswith('pip install "ase<3.26"')
    assert found["e3nn"].status == PROBLEM and '"e3nn>=' in found["e3nn"].fix
    assert not {"torch", "numpy"} & set(found)  # newer ones will do
    assert found["something"].status == WARNING and "packages" not in found
