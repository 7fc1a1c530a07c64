"""Systems of one atom, and batches with as many atoms as systems."""

import copy

import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.io import Trajectory
from torch_geometric.data import Batch, Data

from dens_ocp.relaxation import trajectories
from dens_ocp.training import metric_errors
from dens_ocp.training.metric_errors import Fields, MetricRows
from tests.lmdbs import s2ef_records, write_lmdb
from tests.relaxation import relaxations
from tests.relaxation.relaxations import OURS, STOCK

pytestmark = pytest.mark.filterwarnings("ignore:Please use atoms.calc:FutureWarning")


def one_atom(sid: int, metal: str = "Cu", constant: float = 3.6) -> Data:
    """The primitive cell of an fcc metal."""
    atoms = bulk(metal, "fcc", a=constant)
    return Data(
        pos=torch.full((1, 3), 0.1),
        cell=torch.tensor(atoms.cell.array, dtype=torch.float32)[None],
        atomic_numbers=torch.tensor(atoms.numbers),
        natoms=1,
        tags=torch.zeros(1, dtype=torch.long),
        fixed=torch.zeros(1, dtype=torch.long),
        sid=sid,
        y_relaxed=0.1 * sid,
        pos_relaxed=torch.zeros(1, 3),
    )


@pytest.fixture
def alone(tmp_path):
    cells = [one_atom(sid, metal, 3.5 + 0.1 * sid) for sid, metal in enumerate(("Cu", "Al", "Pt"))]
    return write_lmdb(tmp_path / "alone.lmdb", cells)


def settings_of(data, tmp_path, batch_size):
    # forces of one atom are nearly zero, and do not change when it moves
    settings = relaxations.config(
        data, tmp_path / "t", batch_size, relaxation_fmax=1e-9, relaxation_steps=6
    )
    settings["model"] = {**settings["model"], "grid_resolution": 8}  # a force on a single atom
    return settings


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_cells_of_one_atom(alone, tmp_path, batch_size):
    settings = settings_of(alone, tmp_path, batch_size)
    used, metrics = relaxations.relax(settings, tmp_path)
    assert np.isfinite(list(metrics.values())).all()
    relaxed, frames = relaxations.positions(tmp_path), relaxations.last_frames(tmp_path / "t")
    assert set(relaxed) == set(frames) == {"0", "1", "2"}
    for sid, pos in relaxed.items():
        assert np.isfinite(pos).all() and np.abs(pos - 0.1).max() < 6 * 0.04
        assert np.array_equal(frames[sid].positions, pos)
        with Trajectory(tmp_path / "t" / f"{sid}.traj") as frames_of_one:
            assert all(frame.get_forces().shape == (1, 3) for frame in frames_of_one)
            assert all(np.ndim(frame.get_potential_energy()) == 0 for frame in frames_of_one)
    batch = Batch.from_data_list([used.relax_dataset[index] for index in range(3)])
    batch.pos = torch.tensor(np.concatenate([relaxed[sid] for sid in "012"])).float()
    again = used.predict(batch, per_image=False, disable_tqdm=True)
    energies = [frames[sid].get_potential_energy() for sid in "012"]
    assert energies == pytest.approx(again["energy"].flatten().tolist(), abs=1e-4)

    (tmp_path / "results" / "run" / "relaxed_positions.npz").unlink()
    _, read = relaxations.relax(settings, tmp_path)  # goes on: all are there
    assert read == metrics
    for sid, pos in relaxations.positions(tmp_path).items():
        assert np.array_equal(pos, relaxed[sid])


def test_a_system_at_rest_leaves_the_others_as_they_are(tmp_path):
    """An L-BFGS step of one system does not depend on what is beside it."""
    slabs = s2ef_records(2)
    for record in slabs:
        record.y_relaxed, record.pos_relaxed = record.y, record.pos
        del record.y, record.force, record.fid
    together = [copy.copy(slabs[0]), one_atom(77), copy.copy(slabs[1])]
    data = write_lmdb(tmp_path / "together.lmdb", together)
    relaxations.relax(settings_of(data, tmp_path, 3), tmp_path)
    relaxed = relaxations.positions(tmp_path)
    assert all(np.isfinite(pos).all() for pos in relaxed.values()) and len(relaxed) == 3
    assert max(np.abs(relaxed["0"] - slabs[0].pos.numpy()).max(), 0) > 1e-3


def test_trajectories_of_no_use_are_relaxed_again(alone, tmp_path):
    """As earlier versions left them: a number for the forces, or NaN."""
    from ase.calculators.singlepoint import SinglePointCalculator

    settings = settings_of(alone, tmp_path, 3)
    relaxations.relax(settings, tmp_path)
    good = relaxations.contents(tmp_path / "t")
    path = tmp_path / "t" / "1.traj"
    frame = trajectories.read(path).relaxed
    moved = frame.copy()
    moved.positions[:] = np.nan
    for atoms, results in (
        (frame.copy(), {"energy": 0.5, "forces": 0.1}),
        (frame.copy(), {"energy": np.nan, "forces": np.zeros((1, 3))}),
        (frame.copy(), {"energy": 0.5, "forces": np.full((1, 3), np.nan)}),
        (moved, {"energy": 0.5, "forces": np.zeros((1, 3))}),
    ):
        atoms.calc = SinglePointCalculator(atoms)
        atoms.calc.results = results
        with Trajectory(path, "w") as writer:
            writer.write(atoms)
        assert trajectories.read(path) is None
        relaxations.relax(settings, tmp_path)
        assert relaxations.contents(tmp_path / "t") == good


@pytest.mark.parametrize("name", [STOCK, OURS])
def test_predictions(alone, tmp_path, name):
    settings = settings_of(alone, tmp_path, 3)
    settings["task"]["prediction_dtype"] = "float32"
    settings["dataset"] = {"test": {"src": str(alone)}}
    trainer = relaxations.trainer_of(settings, tmp_path, name)
    trainer.is_debug = False
    trainer.predict(trainer.test_loader, results_file="predictions", disable_tqdm=True)
    (file,) = (tmp_path / "results" / "run").glob("*.npz")
    with np.load(file) as found:
        assert found["forces"].shape == (3, 3) and found["energy"].shape == (3, 1)
        assert found["chunk_idx"].tolist() == [1, 2]


def test_the_level_of_a_field_is_not_told_by_its_length():
    """Two structures of three atoms with an edge list of two rows, and three edges."""
    records = []
    for natoms in (1, 2):
        records.append(
            Data(
                pos=torch.rand(natoms, 3),
                natoms=natoms,
                fixed=torch.zeros(natoms),
                charge=torch.arange(natoms),
                edge_index=torch.zeros(2, 3, dtype=torch.long),
                distances=torch.rand(3 if natoms == 1 else 0),
                total=float(natoms),
            )  # fmt: skip
        )
    batch = Batch.from_data_list(records)
    rows = MetricRows.of(batch, torch.tensor([False, True]))
    fields = Fields({}, batch, rows)
    assert torch.equal(fields["edge_index"], batch.edge_index)  # 2 rows, 2 structures
    assert torch.equal(fields["distances"], batch.distances)  # 3 edges, 3 atoms
    assert fields["charge"].tolist() == [0, 1] and fields["total"].tolist() == [2.0]
    batch.added = torch.tensor([5.0, 6.0, 7.0])
    assert fields["added"].tolist() == [6.0, 7.0]
    assert metric_errors._level("pos", batch) == "atom"
