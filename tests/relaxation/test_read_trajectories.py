"""Last frames of relaxations, and what files tell of those that did not finish."""

from __future__ import annotations

import os

import pytest
from ase.io import Trajectory

from dens_ocp.errors import DensError
from dens_ocp.relaxation import trajectories
from dens_ocp.relaxation.trajectories import (
    read_relaxed,
    relaxed_systems,
)
from tests.conftest import slab
from tests.results.conftest import frame


@pytest.fixture
def folder(tmp_path):
    """``10.traj`` and ``9.traj``, three frames each, the last with energy -1 and -2 eV."""
    for sid, last in (("10", -1.0), ("9", -2.0)):
        write(tmp_path / f"{sid}.traj", [last + 2, last + 1, last])
    return tmp_path


def write(path, energies):
    with Trajectory(path, "w") as trajectory:
        for energy in energies:
            trajectory.write(frame(slab(), energy, force=0.01))
    return path


def test_last_frames_in_the_order_of_fairchems_files(folder):
    assert list(relaxed_systems(folder).energies.items()) == [("10", -1.0), ("9", -2.0)]
    assert relaxed_systems(folder).positions["9"] == pytest.approx(slab().pos.numpy(), abs=1e-6)
    relaxed = read_relaxed(folder)
    assert relaxed.max_forces == {"10": 0.01, "9": 0.01}
    assert (relaxed.above(0.005), relaxed.above(0.02)) == (["10", "9"], [])


def test_a_stopped_relaxation(folder):
    """Frames are on disk before the file is closed."""
    running = Trajectory(folder / "8.traj_tmp", "w")
    for energy in (1.0, 0.5):
        running.write(frame(slab(), energy))
    relaxed = read_relaxed(folder)
    assert list(relaxed.unfinished) == ["8"] and "8" not in relaxed.energies
    assert read_relaxed(folder, last_frame=True).energies["8"] == 0.5
    with pytest.raises(DensError, match=r"1 relaxation\(s\) did not finish \(8: 8.traj_tmp"):
        relaxed_systems(folder)
    running.close()


def test_a_killed_relaxation_of_our_trainer(folder):
    """A process that dies while it writes; what is left is read as fairchem's is."""
    child = os.fork()
    if child == 0:
        with trajectories.writing(folder, ["8", "a.b"]) as writers:
            for energy in (1.0, 0.5):
                for writer in writers:
                    writer.write(frame(slab(), energy))
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    relaxed = read_relaxed(folder)
    assert set(relaxed.unfinished) == {"8", "a.b"} and not {"8", "a.b"} & set(relaxed.energies)
    last = read_relaxed(folder, last_frame=True).energies
    assert (last["8"], last["a.b"]) == (0.5, 0.5)
    with pytest.raises(DensError, match=r"2 relaxation\(s\) did not finish \(8: .8.traj_unfin"):
        relaxed_systems(folder)
    trajectories.claim(folder, {"weights": "a"}, overwrite=True)  # the next run
    assert read_relaxed(folder).unfinished == {}


def test_the_number_of_systems_is_known(folder):
    """The folder holds two; a run that was killed between two batches has relaxed no more."""
    for systems, there in ((2, True), (None, True), (3, False)):
        trajectories.claim(folder, {"weights": "a"}, overwrite=True, systems=systems)
        assert trajectories.number_of_systems(folder) == systems
        trajectories.claim(folder, {"weights": "a"}, systems=systems)  # goes on
        if there:
            assert len(relaxed_systems(folder).energies) == 2
        else:
            with pytest.raises(DensError, match="holds trajectories of only 2 of 3 systems"):
                relaxed_systems(folder)
    with pytest.raises(DensError, match="another checkpoint"):
        trajectories.claim(folder, {"weights": "b"}, systems=3)


def test_a_finished_one_that_is_run_again_counts(folder):
    write(folder / "9.traj_tmp", [5.0])
    assert relaxed_systems(folder).energies["9"] == -2.0


def test_damaged_and_empty_ones(folder):
    content = (folder / "9.traj").read_bytes()
    for size in range(0, len(content), 97):
        (folder / "9.traj").write_bytes(content[:size])
        relaxed = read_relaxed(folder)
        assert list(relaxed.unfinished) == ["9"], size
        assert "9" not in relaxed.energies
        # an earlier frame, or none
        assert read_relaxed(folder, last_frame=True).energies.get("9", -1.0) in (-1.0, 0.0, -2.0)
    write(folder / "9.traj", [])
    assert read_relaxed(folder).unfinished == {"9": "9.traj has no frame"}


def test_without_energy(folder):
    with Trajectory(folder / "9.traj", "w") as trajectory:
        trajectory.write(frame(slab(), 3.0))
        atoms = frame(slab(), 0.0)
        atoms.calc = None
        trajectory.write(atoms)
    assert read_relaxed(folder).unfinished == {"9": "9.traj: its last frame has no energy"}
    assert read_relaxed(folder, last_frame=True).energies["9"] == 3.0


def test_systems_without_trajectory(folder):
    assert read_relaxed(folder, ["9", "11"]).unfinished == {"11": "no trajectory"}


def test_no_folder(tmp_path):
    with pytest.raises(DensError, match="is not a folder of trajectories"):
        read_relaxed(tmp_path / "no")
    with pytest.raises(DensError, match="holds no trajectory"):
        read_relaxed(tmp_path)
