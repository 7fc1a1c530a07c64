"""``dens-ocp doctor`` says which archive holds a data set of the recipes that is missing."""

from pathlib import Path

import pytest
import yaml

from dens_ocp.settings import recipes
from dens_ocp.tools.doctor import archives, command
from dens_ocp.tools.doctor.finding import OK, PROBLEM
from tests.conftest import ROOT
from tests.lmdbs import write_s2ef

DOCUMENT = (ROOT / "docs" / "data.md").read_text()
OWN = ("acetylacetone", "hot_crystals", "oc20_slabs", "wbm")  # converted by other commands


def sources(block) -> list[str]:
    """Data paths in a config."""
    if isinstance(block, dict):
        return [path for value in block.values() for path in sources(value)]
    is_path = isinstance(block, str) and block.startswith("data/")
    return [block] if is_path else []


def test_every_data_set_of_a_recipe_has_an_archive():
    paths = {
        path
        for file in (ROOT / "configs").rglob("*.yml")
        for path in sources(yaml.safe_load(file.read_text()))
        if Path(path).parts[1] not in OWN
    }
    assert len(paths) > 30
    for path in paths:
        assert archives.of(path), path


@pytest.mark.parametrize("archive", archives.ARCHIVES, ids=lambda archive: archive.path)
def test_the_document_has_the_archive_and_its_size(archive):
    for name in archive.name.split(" and "):
        members = [name.replace(r"\1", member) for member in ("ads", "aspirin")]  # of a family
        assert any(f"`{each}`" in DOCUMENT or f" {each} " in DOCUMENT for each in members), name
    for size in archive.size.split(" and "):
        assert size in DOCUMENT or not size[0].isdigit(), size


def test_paths_of_ones_own_have_none():
    assert archives.to_download("/scratch/mine/train") == ""
    assert archives.of("/scratch/data/oc20/s2ef/train_2M").name == "s2ef_train_2M.tar"


def findings(name: str, folder: Path, *overrides: str) -> list:
    return list(command.config_findings(recipes.path_of(name), folder, False, list(overrides)))


def test_missing_data_of_a_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = {each.check: each for each in findings("oc22/equiformer_v2_dens", tmp_path)}
    for check in ("dataset.train", "dataset.val"):
        assert found[check].status == PROBLEM and "20 GB" in found[check].fix
        assert f"--{check}.src=PATH" in found[check].fix
    assert "oc22_linfit_coeffs.npz" in found["references.energy"].fix


def test_missing_data_of_an_evaluation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_s2ef(tmp_path / "mine", 2)
    found = findings("oc20/evaluate", tmp_path, "--evaluation.s2ef.id=mine")
    by_check = {each.check: each for each in found}
    assert by_check["evaluation.s2ef.id"].status == OK
    problem = by_check["evaluation.is2re.ood_cat"]
    assert problem.status == PROBLEM and "8.1 GB" in problem.fix
    assert "--evaluation.is2re.ood_cat=PATH" in problem.fix
