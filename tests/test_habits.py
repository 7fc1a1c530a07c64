"""Continuous integration, pre-commit and `make lint` check the same."""

import re
import subprocess

import yaml

from dens_ocp import __version__
from tests.conftest import ROOT


def steps(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line.split()[1] for line in lines if line.startswith("make ")]


def test_continuous_integration_lints_before_it_tests():
    assert steps((ROOT / ".ci" / "run").read_text()) == ["lint", "test"]


def test_continuous_integration_fails_where_lint_fails(tmp_path):
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "run").write_text((ROOT / ".ci" / "run").read_text())
    (tmp_path / "Makefile").write_text("lint:\n\t@exit $(LINT)\ntest:\n\t@echo tested\n")
    for lint in (0, 1):
        done = subprocess.run(
            ["bash", ".ci/run"], cwd=tmp_path, env={"LINT": str(lint), "PATH": "/usr/bin:/bin"},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == ("tested" in done.stdout) == (lint == 0)


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
