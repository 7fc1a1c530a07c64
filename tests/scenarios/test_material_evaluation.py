"""Two checkpoints on crystals with stress, with DeNS and without: ``evaluate`` and ``compare``."""

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import FIRE
from ase.stress import voigt_6_to_full_3x3_stress
from pymatgen.core import Structure

from dens_ocp.relaxation.cell_relaxation import CellRelaxation, of_model, relax
from dens_ocp.relaxation.trajectories import read
from dens_ocp.tools.cli import main
from dens_ocp.tools.relax_cells import calculator
from tests.crystals import crystal, write_crystals
from tests.runs import make_trainer
from tests.scenarios.test_materials import recipe

SEEDS = range(12, 16)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Crystals and two checkpoints, each trained for an epoch in this process."""
    path = write_crystals(tmp_path_factory.mktemp("materials"), range(8), SEEDS, sids=True)
    for name, given in (("dens", {}), ("plain", {"use_denoising_pos": False})):
        trainer = make_trainer(
            recipe(path, max_epochs=1, **given), path, is_debug=False, timestamp_id=name
        )
        trainer.train()
    evaluation = {
        "dataset": {"format": "ase_db"},
        "s2ef": {"val": str(path / "val")},
        "relax_cell": {"val": str(path / "val")},
        "relaxation": {"steps": 4, "batch_size": 3},
        "name": "small-dens",
    }
    content = {"evaluation": evaluation, "optim": {"eval_batch_size": 3}}
    (path / "evaluate.yml").write_text(yaml.safe_dump(content))
    return path


def words(folder, name, *more):
    checkpoint = folder / "checkpoints" / name / "checkpoint.pt"
    return ["evaluate", str(checkpoint), "--config-yml", str(folder / "evaluate.yml"),
            "--out", str(folder / f"of_{name}"), "--cpu", "--no-report", *more]  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(folder):
    assert main(words(folder, "dens")) == 0  # its runs are processes of their own
    return folder / "of_dens"


@pytest.fixture(scope="module")
def model(folder):
    return calculator(folder / "checkpoints" / "dens" / "checkpoint.pt", cpu=True)


def test_scores_are_those_of_the_calculator(evaluated, model):
    """Energy per atom, forces and stress of each crystal, against EMT's."""
    energies, forces, stresses = [], [], []
    for seed in SEEDS:
        mine, true = crystal(seed), crystal(seed)
        mine.calc, true.calc = model, EMT()
        off = mine.get_potential_energy() - true.get_potential_energy()
        energies.append(abs(off) / len(mine))
        forces.append(np.abs(mine.get_forces() - true.get_forces()).mean())
        stress = mine.get_stress() - true.get_stress()
        stresses.append(np.abs(voigt_6_to_full_3x3_stress(stress)).mean())
    scores = json.loads((evaluated / "scores.json").read_text())["scores"]["s2ef"]["val"]
    assert scores["energy_per_atom_mae_meV"] == pytest.approx(1000 * np.mean(energies), rel=1e-3)
    assert scores["force_mae_meV_per_A"] == pytest.approx(1000 * np.mean(forces), rel=1e-3)
    # frames of edges differ between prediction files and the calculator
    assert scores["stress_mae_meV_per_A3"] == pytest.approx(1000 * np.mean(stresses), rel=5e-3)


def test_a_batch_moves_as_ase_moves_each(model):
    """The model's relaxations side by side, against ASE's with fairchem's own calculator."""
    found = relax([crystal(seed) for seed in (12, 13)], of_model(model), CellRelaxation(steps=3))
    for seed, mine in zip((12, 13), found, strict=True):
        atoms = crystal(seed)
        atoms.calc = model
        FIRE(FrechetCellFilter(atoms), logfile=None).run(fmax=0.02, steps=3)
        np.testing.assert_allclose(mine.atoms.positions, atoms.positions, atol=2e-5)
        np.testing.assert_allclose(mine.atoms.cell, atoms.cell, atol=2e-5)
        np.testing.assert_allclose(mine.atoms.get_stress(), atoms.get_stress(), atol=2e-5)
        assert np.abs(atoms.cell - crystal(seed).cell).max() > 1e-3


def test_matbench_discoverys_file(evaluated, model):
    frame = pd.read_json(evaluated / "matbench_discovery/small-dens-val.json.gz", lines=True)
    assert list(frame) == ["material_id", "small-dens_structure", "small-dens_energy"]
    assert list(frame.material_id) == [f"mat-{seed}" for seed in SEEDS]
    for name, structure, energy in frame.itertuples(index=False):
        atoms = read(evaluated / "relaxed_cells" / "val" / f"{name}.traj").relaxed
        found = Structure.from_dict(structure)
        np.testing.assert_allclose(found.lattice.matrix, atoms.cell.array, atol=1e-9)
        np.testing.assert_allclose(found.cart_coords, atoms.positions, atol=1e-9)
        atoms.calc = model
        assert energy == pytest.approx(atoms.get_potential_energy(), abs=1e-4)


def test_again_nothing_runs(evaluated, folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in evaluated.glob("relaxed_cells/val/*")}
    scores = (evaluated / "scores.json").read_bytes()
    assert main(words(folder, "dens")) == 0
    assert "2 of 2 runs are done already" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert scores == (evaluated / "scores.json").read_bytes()
    assert main(words(folder, "dens", "--evaluation.relaxation.fmax=0.05")) == 2
    assert "relaxation.fmax: 0.02 before, 0.05 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--submit"], "--submit: relax_cell-val is not a run of fairchem"),
        (["--evaluation.relaxation.optimizer=FIER"], "did you mean 'FIRE'"),
        (["--evaluation.relax_cell.val=nowhere"], "nowhere does not exist"),
        (["--only", "relax_cell-vol"], "there is no run 'relax_cell-vol'"),
    ],
)
def test_mistakes(folder, capsys, more, said):
    out = folder / "mistake"
    assert main([*words(folder, "dens"), "--out", str(out), *more]) == 2
    assert said in capsys.readouterr().err
    assert {path.name for path in out.glob("*")} <= {".lock"}, "nothing is begun"


def test_with_and_without_dens(evaluated, folder, capsys):
    assert main(words(folder, "plain", "--evaluation.relax_cell.val=")) == 0
    capsys.readouterr()
    assert main(["compare", str(folder / "of_plain"), str(evaluated)]) == 0
    said = capsys.readouterr().out
    assert "of_plain (without DeNS)" in said and "of_dens (with DeNS)" in said
    for score in ("energy MAE per atom (meV)", "force MAE (meV/A)", "stress MAE (meV/A^3)"):
        assert score in said
    assert "relax_cell" not in said  # of one only
