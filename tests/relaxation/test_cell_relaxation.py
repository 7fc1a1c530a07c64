"""Relaxations of cell and positions: ASE's own steps, known optima, restarts, mistakes."""

import json
from pathlib import Path

import ase.db
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from scipy.optimize import minimize_scalar

from dens_ocp.dens.options import parsed
from dens_ocp.errors import DensError
from dens_ocp.relaxation import trajectories
from dens_ocp.relaxation.cell_relaxation import OPTIMIZERS, CellRelaxation, of_calculator, relax
from dens_ocp.relaxation.cell_trajectories import SUMMARY, System, Systems, check, relax_systems

EVALUATE = of_calculator(EMT())


def crystal(seed, scale=0.03):
    """A metal with shaken atoms and a strained, sheared cell."""
    atoms = bulk(("Cu", "Ni", "Al")[seed % 3], cubic=True)
    atoms.rattle(0.05, seed=seed)
    strain = np.eye(3) + scale * np.random.default_rng(seed).standard_normal((3, 3))
    atoms.set_cell(atoms.cell @ strain, scale_atoms=True)
    return atoms


def systems(count):
    return [System(f"mat-{seed}", crystal(seed)) for seed in range(count)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_steps_are_those_of_ase(name):
    """Side by side each structure moves as it does alone in ASE."""
    settings = CellRelaxation(optimizer=name, steps=12, fmax=0.15)
    found = relax([crystal(seed) for seed in range(3)], EVALUATE, settings)
    for seed, mine in enumerate(found):
        atoms = crystal(seed)
        atoms.calc = EMT()
        theirs = OPTIMIZERS[name](FrechetCellFilter(atoms), logfile=None)
        assert mine.converged == theirs.run(fmax=0.15, steps=12)
        assert mine.steps == theirs.nsteps
        np.testing.assert_array_equal(mine.atoms.positions, atoms.positions)
        np.testing.assert_array_equal(mine.atoms.cell, atoms.cell)
        assert mine.atoms.get_potential_energy() == atoms.get_potential_energy()
    assert len({mine.steps for mine in found}) > 1, "one that has ended must not stop the others"


def test_a_known_lattice_constant_is_found():
    """EMT's copper, from a sheared and compressed cell; lengths, angles, and what ends it."""

    def energy(length):
        atoms = bulk("Cu", a=length)
        atoms.calc = EMT()
        return atoms.get_potential_energy()

    best = minimize_scalar(energy, bounds=(3.4, 3.8), method="bounded").x
    start = crystal(0, scale=0.05)
    settings = CellRelaxation(fmax=0.001)
    (found,) = relax([start], EVALUATE, settings)
    assert found.converged and 10 < found.steps < 500
    np.testing.assert_allclose(found.atoms.cell.lengths(), best, rtol=2e-3)
    np.testing.assert_allclose(found.atoms.cell.angles(), 90, atol=0.1)
    assert np.abs(start.cell.angles() - 90).max() > 1  # shear had to go
    assert found.atoms.cell.volume / 4 == pytest.approx(best**3 / 4, rel=1e-3)
    # what ended it, with a fresh calculator: the filter's forces on atoms and on the cell
    again = start.copy()
    moved = FrechetCellFilter(again)
    again.set_cell(found.atoms.cell)
    again.positions = found.atoms.positions
    again.calc = EMT()
    forces = np.linalg.norm(moved.get_forces(), axis=1)
    assert len(forces) == 4 + 3 and forces.max() < settings.fmax
    # the same in the stress itself: V sigma / N, with ASE's sign and order
    virial = again.cell.volume * again.get_stress(voigt=False) / len(again)
    assert np.linalg.norm(virial, axis=1).max() < 1.1 * settings.fmax
    np.testing.assert_allclose(found.atoms.get_stress(), again.get_stress(), atol=1e-9)


def test_a_filter_of_none_leaves_the_cell():
    start = crystal(1)
    settings = CellRelaxation(cell_filter="none", optimizer="BFGS", fmax=0.01)
    (found,) = relax([start], of_calculator(EMT(), stress=False), settings)
    assert found.converged
    np.testing.assert_array_equal(found.atoms.cell, start.cell)
    assert np.linalg.norm(found.atoms.get_forces(), axis=1).max() < 0.01


def test_frames_and_no_steps():
    (found,) = relax([crystal(0)], EVALUATE, CellRelaxation(steps=0))
    assert len(found.frames) == 1 and found.steps == 0 and not found.converged
    (found,) = relax([crystal(0)], EVALUATE, CellRelaxation(steps=3, save_full_traj=True))
    assert len(found.frames) == 4 and found.frames[-1].info["n_steps"] == 3


def test_one_that_breaks_does_not_stop_the_others():
    """Results that are not finite: the last finite structure is kept, and the reason."""
    calls = []

    def evaluate(structures):
        calls.append(len(structures))
        found = EVALUATE(structures)
        if len(calls) == 4:
            found[1]["energy"] = np.array(np.nan)
        return found

    settings = CellRelaxation(steps=6, fmax=1e-6)
    whole = relax([crystal(0), crystal(1)], EVALUATE, settings)
    good, bad = relax([crystal(0), crystal(1)], evaluate, settings)
    assert calls == [2, 2, 2, 2, 1, 1, 1]
    np.testing.assert_array_equal(good.atoms.positions, whole[0].atoms.positions)
    assert "not finite" in bad.failure and not bad.converged
    assert np.isfinite(bad.atoms.get_potential_energy())
    assert bad.frames[-1].info["failure"] == bad.failure


def test_a_batch_that_does_not_fit_is_halved():
    def evaluate(structures):
        calls.append(len(structures))
        if len(structures) > 1 or structures[0].get_chemical_symbols()[0] == "Al":
            raise torch.cuda.OutOfMemoryError("no memory")
        return EVALUATE(structures)

    calls = []
    found = relax([crystal(seed) for seed in range(3)], evaluate, CellRelaxation(steps=1))
    assert calls[:5] == [3, 1, 2, 1, 1]
    assert [bool(each.failure) for each in found] == [False, False, True]
    assert "memory" in found[2].failure


# ---- a data set ----------------------------------------------------------------------------------

SETTINGS = CellRelaxation(steps=4, batch_size=2)
CLAIM = {"checkpoint": "abc"}


def run(folder, settings=SETTINGS, evaluate=EVALUATE, count=5, shard=0, claim=CLAIM):
    return relax_systems(
        systems(count), evaluate, settings, folder, where="relax_cell.x", claim=claim, shard=shard,
        batches=iter,
    )  # fmt: skip


def written(folder: Path):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*"))}


def test_a_killed_run_goes_on(tmp_path):
    """What was done is not done again, nothing is half there, and the end is the same."""
    whole, calls = run(tmp_path / "whole"), []

    def killed(structures):
        calls.append(len(structures))
        if len(calls) == 8:  # in the second batch
            raise KeyboardInterrupt
        return EVALUATE(structures)

    folder = tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        run(folder, evaluate=killed)
    assert {path.name for path in folder.glob("*")} == {
        "relaxations.json", "mat-0.traj", "mat-1.traj",
    }  # fmt: skip
    (folder / ".mat-2.traj_unfinished").write_bytes(b"half a frame")  # of a SIGKILL
    again = []

    def counted(structures):
        again.append(structures[0].get_chemical_symbols()[0])
        return EVALUATE(structures)

    assert run(folder, evaluate=counted) == whole
    assert len(again) == 2 * (SETTINGS.steps + 1), "two of three batches were left"
    assert written(folder) == written(tmp_path / "whole")
    again.clear()
    assert run(folder, evaluate=counted) == whole and not again
    (folder / "mat-3.traj").write_bytes((folder / "mat-3.traj").read_bytes()[:900])  # damaged
    assert run(folder, evaluate=counted) == whole and len(again) == SETTINGS.steps + 1
    assert written(folder) == written(tmp_path / "whole")


def test_shards_are_the_whole(tmp_path):
    whole, together = run(tmp_path / "whole"), {}
    for shard in range(3):
        settings = SETTINGS.model_copy(update={"shards": 3})
        part = run(tmp_path / str(shard), settings, shard=shard)
        assert not set(part) & set(together)
        together |= part
    assert together == whole and len(whole) == 5


def test_what_the_summary_says(tmp_path):
    summary = run(tmp_path, CellRelaxation(fmax=0.1, steps=50), count=2)
    assert json.loads((tmp_path / SUMMARY).read_text()) == summary
    for seed, (name, entry) in enumerate(summary.items()):
        relaxed = trajectories.read(tmp_path / f"{name}.traj").relaxed
        assert entry["converged"] and entry["failure"] == "" and 0 < entry["n_steps"] < 50
        assert entry["energy"] == relaxed.get_potential_energy()
        change = relaxed.cell.volume / crystal(seed).cell.volume - 1
        assert entry["volume_change_percent"] == pytest.approx(100 * change)


def test_results_of_something_else_are_not_mixed_in(tmp_path):
    run(tmp_path, count=2)
    with pytest.raises(DensError, match="--out: .*checkpoint abc there, other now"):
        run(tmp_path, claim={"checkpoint": "other"})
    with pytest.raises(DensError, match="fmax 0.02 there, 0.5 now"):
        run(tmp_path, CellRelaxation(steps=4, fmax=0.5))


def test_systems_of_a_database(tmp_path):
    with ase.db.connect(tmp_path / "data.db") as database:
        database.write(crystal(0), data={"sid": "wbm-1-1"})
        database.write(crystal(1), data={"material_id": "wbm-1-2"})
        database.write(crystal(2))
    found = Systems({"src": str(tmp_path), "format": "ase_db"}, "evaluation.relax_cell.wbm")
    assert [each.name for each in found] == ["wbm-1-1", "wbm-1-2", "2"]
    np.testing.assert_array_equal(found[1].atoms.positions, crystal(1).positions)
    with pytest.raises(DensError, match="format: lmdb does not give ASE structures.*ase_db"):
        Systems({"src": str(tmp_path)}, "evaluation.relax_cell.wbm")


def without(change):
    atoms = crystal(0)
    change(atoms)
    return atoms


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (molecule("H2O"), "has no cell"),
        (without(lambda atoms: atoms.set_cell([3, 3, 0])), "has a cell without a volume"),
        (without(lambda atoms: atoms.set_pbc([1, 1, 0])), "is not periodic in all three"),
    ],
)
def test_structures_whose_cell_cannot_be_relaxed(tmp_path, atoms, words):
    given = [System("good", crystal(0)), System("bad", atoms)]
    with pytest.raises(DensError, match=f"x: the structure bad {words}.*cell_filter: none"):
        check(given, SETTINGS, "x")
    check(given, CellRelaxation(cell_filter="none"), "x")
    with pytest.raises(DensError, match="two structures have the name good"):
        check([given[0], given[0]], SETTINGS, "x")
    with pytest.raises(DensError, match="the name a/b of a structure cannot be the name of a file"):
        check([System("a/b", crystal(0))], SETTINGS, "x")


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"optimizer": "FIER"}, "evaluation.relaxation.optimizer: 'FIER' .*did you mean 'FIRE'"),
        ({"optimizer": "MDMin"}, "the choices are FIRE, BFGS, LBFGS"),
        ({"cell_filter": "ExpCell"}, "evaluation.relaxation.cell_filter: 'ExpCell'"),
        ({"fmax": 0}, "evaluation.relaxation.fmax: 0"),
        ({"steps": -1}, "evaluation.relaxation.steps: -1"),
        ({"shards": 0}, "evaluation.relaxation.shards: 0"),
        ({"fmx": 1}, "evaluation.relaxation.fmx, did you mean 'fmax'"),
    ],
)
def test_wrong_options(block, words):
    with pytest.raises(DensError, match=words):
        parsed(CellRelaxation, block, "evaluation.relaxation")


def test_a_model_without_stress():
    with pytest.raises(DensError, match="cell_filter: the model gives no stress"):
        relax([crystal(0)], of_calculator(EMT(), stress=False), SETTINGS)


def test_the_settings_of_matbench_discovery_are_the_defaults():
    assert CellRelaxation().model_dump(include={"optimizer", "cell_filter", "fmax", "steps"}) == {
        "optimizer": "FIRE", "cell_filter": "FrechetCellFilter", "fmax": 0.02, "steps": 500,
    }  # fmt: skip
