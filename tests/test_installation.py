"""What is installed, and how the documents and the Makefile say it."""

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from dens_ocp.tools.doctor import packages
from tests.conftest import ROOT
from tests.test_readme import DOCUMENTS, commands_of

PROJECT = (ROOT / "pyproject.toml").read_text()


def block(name: str) -> list[Requirement]:
    """A list of requirements of pyproject.toml."""
    text = re.search(rf"^{name} = \[\n(.*?)^\]", PROJECT, re.DOTALL | re.MULTILINE)[1]
    return [Requirement(each) for each in re.findall(r'^ *"([^"]+)"', text, re.MULTILINE)]


def file_of(name: str) -> dict[str, Requirement]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    found = [Requirement(line) for line in lines if not line.startswith("#")]
    assert [each.name for each in found] == sorted(each.name for each in found)
    return {each.name: each for each in found}


def test_requirements_with_another_torch_are_ours_and_fairchems():
    theirs = [Requirement(each) for each in metadata.requires("fairchem-core")]
    theirs = [each for each in theirs if each.marker is None and each.name != "torch"]
    ours = [each for each in block("dependencies") if each.name not in ("torch", "fairchem-core")]
    current = file_of("current.txt")
    assert set(current) == {each.name for each in (*ours, *theirs)}
    for each in (*ours, *theirs):
        if each.name == "numpy":
            continue  # fairchem caps it
        for bound in each.specifier:
            name, version = current[each.name], re.sub(r"(\.0)+$", "", bound.version)
            assert bound.operator == ">=", f"{each}: a cap"
            stated = {re.sub(r"(\.0)+$", "", one.version) for one in name.specifier}
            assert version in stated, f"{each} is {name} in requirements/current.txt"


def test_requirements_of_tests():
    assert {str(each) for each in file_of("dev.txt").values()} == {str(e) for e in block("dev")}


def test_overrides_are_what_fairchem_caps():
    capped = {
        each.name
        for each in map(Requirement, metadata.requires("fairchem-core"))
        if each.marker is None and any(one.operator in ("<", "~=") for one in each.specifier)
    }
    assert set(file_of("overrides.txt")) == capped == {"torch", "numpy"}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("2.13.0", "'torch==2.13.0'"), (">=2.10,<2.11", "'torch>=2.10,<2.11'")],
)
def test_another_torch(tmp_path, given, wanted):
    command = ["make", "-n", "setup", f"TORCH={given}", f"VENV={tmp_path}/venv"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"pip install {wanted}" in shown and "requirements/current.txt" in shown
    # the other one keeps to fairchem's metadata
    del command[3]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert (
        "pip install -c requirements/tested.txt -e '.[dev]'" in shown and "--no-deps" not in shown
    )


def test_files_and_packages_of_the_documents_exist():
    known = {*file_of("current.txt"), "torch", "fairchem-core", *packages.BUILT_AGAINST_TORCH}
    lines = [words[4:] for path in DOCUMENTS for words in commands_of("install", path)]
    assert len(lines) >= 6
    options = ("--only-binary", "-f")  # and what follows them
    for words in lines:
        for before, word in zip(["", *words], words, strict=False):
            if word.startswith(("-", ".")) or before in options:
                continue
            if before == "-r":
                assert Path(ROOT / word).is_file()
            else:
                assert Requirement(word).name in known, word
