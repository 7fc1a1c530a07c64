"""Continuous integration, pre-commit and `make lint` check the same."""

import re
import subprocess

import pytest
import yaml

from dens_ocp import __version__
from tests.conftest import ROOT

STEPS = ("lint", "docs", "test", "test-current")


@pytest.mark.parametrize("broken", [None, *STEPS])
def test_continuous_integration_takes_its_steps_in_order_and_stops_at_a_failure(tmp_path, broken):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text((ROOT / ".ci" / "run").read_text())
    recipes = (f"{step}:\n\t@echo {step}; {'exit 3' if step == broken else ':'}" for step in STEPS)
    (tmp_path / "Makefile").write_text("\n".join(recipes) + "\n")
    done = subprocess.run(
        ["bash", ".ci/run"], cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    ran = STEPS if broken is None else STEPS[: STEPS.index(broken) + 1]
    assert tuple(line for line in done.stdout.splitlines() if line in STEPS) == ran
    assert (done.returncode == 0) == (broken is None)
    assert f"make {ran[-1]} ended with status" in done.stdout


def test_the_core_is_tested_with_current_releases():
    done = subprocess.run(
        ["make", "-n", "test-current"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "TORCH='2." in done.stdout and "VENV=.venv-current" in done.stdout
    for room in ("tests/dens", "tests/gaps", "tests/models", "tests/training", "tests/scenarios"):
        assert room in done.stdout


def test_lint_checks_mistakes_layout_and_types():
    makefile = (ROOT / "Makefile").read_text()
    recipe = re.search(r"^lint: .*\n((?:\t.*\n)+)", makefile, re.MULTILINE)[1].splitlines()
    commands = [line.split(" -m ")[1] for line in recipe]
    assert commands == ["ruff check .", "ruff format --check .", "mypy"]
    project = (ROOT / "pyproject.toml").read_text()
    for room in ("dens", "models", "training"):
        assert re.search(rf'^files = .*"src/dens_ocp/{room}"', project, re.MULTILINE)


def test_pre_commit_runs_the_same():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]] == ["make lint"]


def test_the_citation_names_software_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"]) == ("dens-ocp", __version__)
    paper = citation["preferred-citation"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Liao", "Smidt", "Shuaibi", "Das",
    ]  # fmt: skip
