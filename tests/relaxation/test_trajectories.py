"""Trajectories: the relaxed structure is in them; finished ones are kept, and only those."""

import json

import numpy as np
import pytest
import torch
from ase.io import Trajectory
from fairchem.core.common.relaxation.optimizable import OptimizableBatch

from dens_ocp.errors import DensError
from dens_ocp.patched import swapped
from dens_ocp.relaxation import trajectories
from dens_ocp.relaxation.relaxing import changed_properties
from tests.lmdbs import s2ef_records, write_lmdb
from tests.relaxation import relaxations
from tests.relaxation.relaxations import OURS, STOCK

pytestmark = pytest.mark.filterwarnings("ignore:Please use atoms.calc:FutureWarning")


@pytest.fixture
def fmax(initial_fmax) -> float:
    """Between the smallest two forces: one system is relaxed at the start."""
    smallest = sorted(initial_fmax.values())[:2]
    assert smallest[1] - smallest[0] > 1e-4
    return sum(smallest) / 2


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("trainer", [STOCK, OURS])
def test_the_last_frame_is_the_relaxed_structure(
    systems, tmp_path, initial_fmax, fmax, trainer, full
):
    settings = relaxations.config(
        systems, tmp_path / "t", 5, relaxation_fmax=fmax, save_full_traj=full, relaxation_steps=12
    )
    used, metrics = relaxations.relax(settings, tmp_path, trainer)
    relaxed, frames = relaxations.positions(tmp_path), relaxations.last_frames(tmp_path / "t")
    at_rest = min(initial_fmax, key=initial_fmax.get)
    assert set(frames) == set(relaxed) == set(initial_fmax)
    if trainer == STOCK:
        assert frames[at_rest] is None  # an empty file
        others = [sid for sid in frames if sid != at_rest]
        assert any(np.abs(frames[sid].positions - relaxed[sid]).max() > 1e-4 for sid in others)
        return

    (batch,) = used.relax_loader
    batch.pos = torch.tensor(
        np.concatenate([relaxed[str(sid.item())] for sid in batch.sid])
    ).float()
    again = used.predict(batch, per_image=False, disable_tqdm=True)
    forces = torch.split(again["forces"], batch.natoms.tolist())
    for index, sid in enumerate(str(sid.item()) for sid in batch.sid):
        frame = frames[sid]
        assert np.array_equal(frame.positions, relaxed[sid])
        assert frame.get_potential_energy() == again["energy"][index].item()
        expected = forces[index].numpy() * (batch[index].fixed == 0).numpy()[:, None]
        assert np.array_equal(frame.get_forces(), expected)
        with Trajectory(tmp_path / "t" / f"{sid}.traj") as trajectory:
            assert np.array_equal(trajectory[0].positions, used.relax_dataset[index].pos)
            largest = [np.linalg.norm(each.get_forces(), axis=1).max() for each in trajectory]
            count = len(trajectory)
        assert count == 1 if sid == at_rest else count == 2 if not full else count >= 2
        # every frame but the last one moves on, and the last one is relaxed if there was time
        assert all(force >= fmax for force in largest[:-1])
        assert largest[-1] < fmax * (1 + 1e-4) or count in (2, 13)


def test_a_small_step_is_a_step(tmp_path):
    """fairchem keeps the prediction of the structure before, and divides by the difference."""
    records = s2ef_records(2)
    for record in records:
        record.pos += 5  # no coordinate near zero, where a relative tolerance is small
    data = write_lmdb(tmp_path / "data.lmdb", records)
    settings = relaxations.config(data, None, 2, relaxation_steps=3, relaxation_fmax=1e-4)
    settings["task"]["relax_opt"]["alpha"] = 1e4  # steps of about 2e-6 Angstrom
    relaxations.relax(settings, tmp_path / "stock", STOCK)
    assert all(np.isnan(pos).any() for pos in relaxations.positions(tmp_path / "stock").values())
    relaxations.relax(settings, tmp_path / "ours")
    assert all(np.isfinite(pos).all() for pos in relaxations.positions(tmp_path / "ours").values())

    trainer = relaxations.trainer_of(settings, tmp_path / "x")
    (batch,) = trainer.relax_loader
    with swapped(OptimizableBatch, "ignored_changes", {"pbc"}):
        optimizable = OptimizableBatch(batch.clone(), trainer)
        optimizable.get_forces()
        assert changed_properties(optimizable, optimizable.batch) == []
        optimizable.batch.pos += 5e-6
        assert optimizable.check_state(optimizable.batch) == []
        assert changed_properties(optimizable, optimizable.batch) == ["pos"]


def test_finished_trajectories_are_kept_and_damaged_ones_redone(systems, tmp_path):
    settings = relaxations.config(systems, tmp_path / "t", 2)
    trainer, metrics = relaxations.relax(settings, tmp_path / "r")
    whole = relaxations.contents(tmp_path / "t", tmp_path / "r" / "results")
    assert set(whole) == {
        *(f"{sid}.traj" for sid in range(2000, 2005)), "relaxations.json", "relaxed_positions.npz"
    }  # fmt: skip
    times = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "t").glob("*.traj")}

    def again():
        trainer.logger = relaxations.LoggedMetrics()
        trainer.run_relaxations()
        assert trainer.logger.metrics == metrics
        assert relaxations.contents(tmp_path / "t", tmp_path / "r" / "results") == whole
        now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "t").glob("*.traj")}
        return {int(name.split(".")[0]) for name in now if now[name] != times[name]}

    assert again() == set()  # everything is there: fairchem fails (below)
    first, third = (tmp_path / "t" / f"{sid}.traj" for sid in (2000, 2003))
    for damage in (
        lambda: first.unlink(),
        lambda: first.write_bytes(b""),
        lambda: first.write_bytes(whole[first.name][: len(whole[first.name]) // 2]),
        lambda: first.write_bytes(whole[first.name][:-8]),
    ):
        damage()
        (tmp_path / "t" / ".2000.traj_unfinished").write_bytes(b"rest of a killed run")
        assert again() == {2000, 2001}  # the whole batch
        times.update({f"{sid}.traj": (tmp_path / "t" / f"{sid}.traj").stat().st_mtime_ns
                      for sid in (2000, 2001)})  # fmt: skip
    third.unlink()
    assert again() == {2002, 2003}


def test_fairchem_fails_when_nothing_is_left_to_do(systems, tmp_path):
    settings = relaxations.config(systems, tmp_path / "t", 2, relaxation_steps=1)
    relaxations.relax(settings, tmp_path, STOCK)
    with pytest.raises(ValueError, match="at least one array"):
        relaxations.relax(settings, tmp_path, STOCK)


def relaxed_once(systems, tmp_path, **task):
    settings = relaxations.config(systems, tmp_path / "t", relaxation_steps=1, **task)
    relaxations.relax(settings, tmp_path)
    return settings


def test_another_checkpoint_is_refused(systems, tmp_path):
    settings = relaxed_once(systems, tmp_path)
    with pytest.raises(DensError, match="holds trajectories of another checkpoint"):
        relaxations.relax(settings, tmp_path, weights=1)
    relaxations.relax(settings, tmp_path)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("relaxation_fmax", 0.5, "relaxation_fmax 0.001 there, 0.5 now"),
        ("save_full_traj", False, "save_full_traj True there, False now"),
        ("relax_opt", {"maxstep": 0.2}, "'maxstep': 0.04.* there, {'maxstep': 0.2} now"),
    ],
)
def test_other_settings_are_refused(systems, tmp_path, option, value, words):
    settings = relaxed_once(systems, tmp_path)
    if option == "relax_opt":
        value = {**value, "traj_dir": str(tmp_path / "t")}
    settings["task"][option] = value
    before = relaxations.contents(tmp_path)
    with pytest.raises(DensError, match=words):
        relaxations.relax(settings, tmp_path)
    assert relaxations.contents(tmp_path) == before


def test_trajectories_of_plain_fairchem_are_refused(systems, tmp_path):
    settings = relaxations.config(systems, tmp_path / "t", relaxation_steps=1)
    relaxations.relax(settings, tmp_path, STOCK)
    with pytest.raises(DensError, match="no relaxations.json in it"):
        relaxations.relax(settings, tmp_path)


def test_another_data_set_with_the_same_ids_is_refused(systems, tmp_path):
    settings = relaxed_once(systems, tmp_path)
    records = s2ef_records(5, seed=2)
    records[1].pos += 0.1
    others = write_lmdb(tmp_path / "others" / "data.lmdb", records)
    settings["dataset"]["relax"]["src"] = str(others)
    with pytest.raises(DensError, match="2001.traj starts from another structure"):
        relaxations.relax(settings, tmp_path)


def test_an_error_leaves_no_trajectory(tmp_path):
    with pytest.raises(KeyboardInterrupt), trajectories.writing(tmp_path, ["1", "2"]):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_settings_file(tmp_path):
    trajectories.claim(tmp_path / "new", {"weights": "a"})
    trajectories.claim(tmp_path / "new", {"weights": "b"})  # nothing is there yet
    assert json.loads((tmp_path / "new" / "relaxations.json").read_text()) == {"weights": "b"}


def test_two_systems_with_one_id(tmp_path):
    """They would share a trajectory."""
    records = s2ef_records(3)
    records[2].sid = records[0].sid
    data = write_lmdb(tmp_path / "data.lmdb", records)
    with pytest.raises(DensError, match="dataset.relax: 3 records have 2 ids .* for example 0;"):
        relaxations.relax(relaxations.config(data, tmp_path / "t"), tmp_path)
    assert not (tmp_path / "t").exists()
