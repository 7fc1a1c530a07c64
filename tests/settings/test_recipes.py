"""Recipes by name: all are found, read, copied with what they include, and run from a wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from dens_ocp.errors import DensError
from dens_ocp.settings import config_file, recipes
from dens_ocp.tools.cli import main
from tests.conftest import ROOT
from tests.lmdbs import write_s2ef
from tests.runs import environment

NAMES = recipes.names()


def test_what_is_a_recipe():
    assert "oc20/2M/equiformer_v2_dens_12_epochs" in NAMES and "ablations/slabs_large" in NAMES
    assert not [name for name in NAMES if "common" in name or "settings" in name]
    for name in NAMES:
        if not name.startswith("ablations/"):
            assert config_file.read(recipes.path_of(name))
    for word in ("oc20/evaluate", "oc20/evaluate.yml", "configs/oc20/evaluate.yml"):
        assert recipes.path_of(word) == ROOT / "configs/oc20/evaluate.yml"
    assert recipes.resolved("mine.yml") == "mine.yml"
    assert recipes.resolved("recipe:oc20/evaluate") == str(ROOT / "configs/oc20/evaluate.yml")


def test_heads():
    recipe = recipes.read("oc20/2M/equiformer_v2_dens_12_epochs")
    assert recipe.title == "EquiformerV2 (89M) with DeNS on OC20 S2EF-2M, 12 epochs."
    assert recipe.facts["cost"] == "1501 GPU-hours in the paper (93 hours)"
    assert recipe.facts["expected result"].endswith("1398 GPU-hours)")  # of a second line
    assert all(recipes.read(name).title for name in NAMES)


def test_list(capsys):
    assert main(["recipes"]) == 0
    everything = capsys.readouterr().out
    for name in NAMES:
        shown = name
        if name.startswith("md17/"):
            shown = f"md17/MOLECULE/{name.split('/')[2]}"
        assert f"{shown}\n" in everything
    assert "1501 GPU-hours" in everything and max(map(len, everything.splitlines())) <= 100
    assert main(["recipes", "list", "uracil", "L2_dens"]) == 0
    shown = capsys.readouterr().out
    assert "md17/uracil/l2_dens\n" in shown and "aspirin" not in shown
    assert main(["recipes", "list", "nothing"]) == 2
    assert "no recipe has nothing" in capsys.readouterr().err


@pytest.mark.parametrize("name", [*NAMES, "slurm", "slurm/submit"])
def test_a_copy_is_whole(name, tmp_path, capsys):
    assert main(["recipes", "copy", name, str(tmp_path)]) == 0
    place = name if name.startswith("slurm") else f"configs/{name}.yml"
    copied = tmp_path / place
    assert copied.exists()
    if name.startswith("slurm"):
        for path in tmp_path.rglob("*"):
            if path.is_file():
                assert path.stat().st_mode == (ROOT / path.relative_to(tmp_path)).stat().st_mode
    elif name.startswith("ablations/"):
        shown = capsys.readouterr().out
        assert f"next: dens-ocp ablate {copied}" in shown
        assert main(["ablate", str(copied), "--list", "--out", str(tmp_path / "out")]) == 0
    else:
        assert config_file.read(copied) == config_file.read(ROOT / place)


def test_copies_do_not_replace_what_was_edited(tmp_path, capsys):
    name = "oc20/2M/equiformer_v2_dens_12_epochs"
    assert main(["recipes", "copy", name, str(tmp_path)]) == 0
    assert main(["recipes", "copy", name, str(tmp_path)]) == 0  # the same
    edited = tmp_path / "configs/oc20/common.yml"
    edited.write_text("mine: 1\n")
    capsys.readouterr()
    assert main(["recipes", "copy", name, str(tmp_path)]) == 2
    assert f"{edited} exists already and differs from the recipe" in capsys.readouterr().err
    assert edited.read_text() == "mine: 1\n"


@pytest.mark.parametrize(
    "words",
    [
        ["main", "--mode", "train", "--config-yml", "recipe:oc20/2M/equiformer_v2_den"],
        ["doctor", "recipe:oc20/2M/equiformer_v2_den"],
        ["plan", "recipe:oc20/2M/equiformer_v2_den", "--gpus", "1"],
        ["ablate", "recipe:oc20/2M/equiformer_v2_den"],
        ["data", "suggest", "recipe:oc20/2M/equiformer_v2_den"],
        ["evaluate", "c.pt", "--config-yml", "recipe:oc20/2M/equiformer_v2_den"],
        ["export", "c.pt", "o.pt", "--config-yml", "recipe:oc20/2M/equiformer_v2_den"],
        ["recipes", "copy", "oc20/2M/equiformer_v2_den"],
    ],
    ids=lambda words: words[0],
)
def test_a_name_that_is_none(words, capsys):
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "there is no recipe 'oc20/2M/equiformer_v2_den', did you mean" in error


@pytest.mark.parametrize("mode", [["main", "--mode", "train", "--config-yml"], ["doctor"]])
def test_a_path_of_a_clone_names_the_recipe(mode, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*mode, "configs/oc22/equiformer_v2_dens.yml"]) == 2
    said = capsys.readouterr()
    assert "the package has it as recipe:oc22/equiformer_v2_dens" in said.out + said.err
    assert recipes.instead_of("mine.yml") is None


def test_scripts_by_name():
    with pytest.raises(
        DensError, match=r"no slurm/trin\.sbatch, did you mean 'slurm/train\.sbatch'"
    ):
        list(recipes.files_of("slurm/trin.sbatch"))


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment of a process that has this package from its wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "site")
    return {**environment(), "PYTHONPATH": str(folder / "site")}


def test_the_wheel_has_them_all(installed):
    root = Path(installed["PYTHONPATH"], "dens_ocp", "recipes")
    for kind in ("configs", "slurm"):
        there = {str(path.relative_to(root / kind)) for path in (root / kind).rglob("*.*")}
        assert there == {str(p.relative_to(ROOT / kind)) for p in (ROOT / kind).rglob("*.*")}


def test_training_from_a_wheel_in_an_empty_folder(installed, tmp_path):
    train = write_s2ef(tmp_path / "data", 8)
    code = (
        "import sys, dens_ocp.tools.cli as cli\n"
        f"assert cli.__file__.startswith({installed['PYTHONPATH']!r}), cli.__file__\n"
        "sys.exit(cli.fairchem_main())"
    )
    words = [
        "main", "--mode", "train", "--config-yml", "recipe:acetylacetone/equiformer_v2_dens",
        "--cpu", f"--dataset.train.src={train}", f"--dataset.val.src={train}", "--seed", "0",
        "--optim.max_epochs=1", "--timestamp-id", "run", "--model.num_layers=1",
    ]  # fmt: skip
    work = tmp_path / "empty"
    work.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=work,
        env=installed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "checkpoints/run/checkpoint.pt").is_file()
