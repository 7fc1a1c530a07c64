"""Results of a model on small data sets of every split, as fairchem writes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import Trajectory

from dens_ocp.results.leaderboard.boards import OC20
from tests.lmdbs import s2ef_records, write_is2re, write_s2ef

SEEDS = {"id": 1, "ood_ads": 2, "ood_cat": 3, "ood_both": 4}


@dataclass(frozen=True)
class Data:
    """LMDBs by split (read only), and the records of their frames."""

    s2ef: dict[str, Path]
    is2re: dict[str, Path]
    records: dict[str, list]


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Data:
    folder = tmp_path_factory.mktemp("splits")
    return Data(
        {s: write_s2ef(folder / s / "s2ef", 4, seed) for s, seed in SEEDS.items()},
        {s: write_is2re(folder / s / "is2re", 3, seed) for s, seed in SEEDS.items()},
        {s: s2ef_records(4, seed) for s, seed in SEEDS.items()},
    )


def predict(records: list, dtype=np.float16, noise: float = 0.01) -> dict[str, np.ndarray]:
    """Arrays of fairchem 1.10's prediction file: sorted ids, energies (S, 1), free atoms."""
    generator = np.random.default_rng(len(records))
    ids = np.array([f"{record.sid}_{record.fid}" for record in records])
    order = np.argsort(ids)
    records = [records[index] for index in order]
    forces = [record.force[record.fixed == 0].numpy() for record in records]
    counts = [len(each) for each in forces]
    energy = np.array([[record.y] for record in records])
    rows = np.concatenate(forces)
    return {
        "ids": ids[order],
        "energy": (energy + noise * generator.normal(size=energy.shape)).astype(dtype),
        "forces": (rows + noise * generator.normal(size=rows.shape)).astype(dtype),
        "chunk_idx": np.cumsum(counts)[:-1],
    }


@pytest.fixture
def predictions(data, tmp_path) -> dict[str, Path]:
    """Prediction npz by split."""
    paths = {}
    for split, records in data.records.items():
        paths[split] = tmp_path / f"{split}.npz"
        np.savez_compressed(paths[split], **predict(records))
    return paths


def frame(record, energy: float, force: float = 0.0) -> Atoms:
    """A frame of a relaxation, with the forces' largest norm ``force`` on a free atom."""
    fixed = np.flatnonzero(record.fixed.numpy())
    atoms = Atoms(
        record.atomic_numbers, record.pos.numpy(), cell=record.cell[0].numpy(), pbc=True,
        constraint=FixAtoms(fixed),
    )  # fmt: skip
    forces = np.zeros((len(atoms), 3))
    forces[fixed] = 9.0  # on fixed atoms, does not count
    forces[np.flatnonzero(record.fixed.numpy() == 0)[0], 2] = force
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def write_trajectories(folder: Path, records: list, frames: int = 3) -> Path:
    """``<sid>.traj``: energies fall by one from frame to frame, to ``y - 1``."""
    folder.mkdir(parents=True)
    for record in records:
        with Trajectory(folder / f"{record.sid}.traj", "w") as trajectory:
            for index in reversed(range(frames)):
                energy = float(np.float32(record.y + index - 1))
                trajectory.write(frame(record, energy, 0.01 + index))
    return folder


@pytest.fixture
def trajectories(data, tmp_path) -> dict[str, Path]:
    """Folder of trajectories by split, of the systems of the IS2RE LMDBs."""
    return {
        split: write_trajectories(tmp_path / "relaxations" / split / "trajectories", records[:3])
        for split, records in data.records.items()
    }


@pytest.fixture
def positions(data, tmp_path) -> dict[str, Path]:
    """``relaxed_positions.npz`` by split: all atoms, moved up by 0.05 Angstrom if free."""
    paths = {}
    for split, records in data.records.items():
        moved = [
            record.pos + torch.tensor([0, 0, 0.05]) * (record.fixed == 0)[:, None]
            for record in records[:3]
        ]
        paths[split] = tmp_path / f"{split}-positions.npz"
        np.savez_compressed(
            paths[split],
            ids=np.array([str(record.sid) for record in records[:3]]),
            pos=np.concatenate([np.array(each.tolist()) for each in moved]),
            chunk_idx=np.cumsum([len(each) for each in moved])[:-1],
        )
    return paths


def options(paths: dict[str, Path]) -> list[str]:
    """``--id PATH --ood-ads PATH ...``"""
    return [x for s, path in paths.items() for x in (f"--{s.replace('_', '-')}", str(path))]


def lmdb_options(paths: dict[str, Path]) -> list[str]:
    return [each for split, path in paths.items() for each in ("--lmdb", f"{split}={path}")]


def edit(path: Path, change: Callable[[dict[str, np.ndarray]], None], **arrays) -> Path:
    """Change the arrays of an npz file in place."""
    with np.load(path, allow_pickle=True) as file:
        content = dict(file)
    content.update(arrays)
    change(content)
    np.savez_compressed(path, **content)
    return path


def good_submission(path: Path, data: Data, task: str = "s2ef") -> Path:
    """A right file, written by hand from the format."""
    arrays = {}
    for split in OC20.splits:
        predicted = predict(data.records[split])
        if task == "s2ef":
            predicted["energy"] = predicted["energy"][:, 0]
        else:
            records = data.records[split][:3]
            predicted = {"ids": np.array([str(record.sid) for record in records])}
            if task == "is2re":
                predicted["energy"] = np.array([record.y for record in records], np.float32)
            else:
                predicted["pos"] = np.concatenate([record.pos.numpy() for record in records])
                predicted["chunk_idx"] = np.cumsum([len(r.pos) for r in records])[:-1]
        arrays |= {f"{split}_{name}": array for name, array in predicted.items()}
    np.savez_compressed(path, **arrays)
    return path
