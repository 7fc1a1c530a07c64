"""docs/molecules.md: the recipe for own data is run as it is written."""

import ase.io
import pytest
import yaml
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from dens_ocp.tools.ablate.plan import Plan
from tests.conftest import ROOT
from tests.test_readme import blocks, commands_of, execute

DOCUMENT = ROOT / "docs" / "molecules.md"


def write_xyz(path, count):
    frames = []
    for index in range(count):
        atoms = molecule("CH3OH")
        atoms.rattle(0.05, seed=index)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


@pytest.mark.slow
def test_recipe(tmp_path):
    write_xyz(tmp_path / "mine.xyz", 1010)
    convert, train, evaluate, *without, compare = commands_of("recipe", DOCUMENT)
    assert "relative to" in execute(convert, tmp_path)
    config = yaml.safe_load((tmp_path / "mine.yml").read_text())
    config["dataset"]["train"]["first_n"] = 48
    config["dataset"]["val"]["first_n"] = 16
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(config))
    # the model of the command line is smaller than that of the file; evaluation takes the former
    log = execute([*train, "--optim.max_epochs=1"], tmp_path)
    assert "optim.dens.sigma: auto picked" in log and "noise MAE" in log
    scores = execute(evaluate, tmp_path)
    assert "force MAE" in scores
    assert (tmp_path / "evaluations/mine/scores.json").is_file()
    log = execute([*without[0], "--optim.max_epochs=1"], tmp_path)
    assert "DeNS: off" in log
    execute(without[1], tmp_path)
    table = execute(compare, tmp_path)
    assert "plain (without DeNS)" in table and "mine (with DeNS)" in table


def test_plan_of_the_document_is_valid():
    plan, curve = (yaml.safe_load(text) for _, text in blocks(ROOT / "docs/ablations.md", "yaml"))
    assert Plan.model_validate(plan).baseline in plan["variants"]
    assert Plan.model_validate({**plan, **curve}).curve == "epochs"
