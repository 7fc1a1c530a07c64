"""The embedded data set: adsorbates on fcc surfaces, labelled by ASE's EMT, laid out as OC20.

EMT stands in for DFT: it is fast, smooth and deterministic, and for H, C, N and O it is not
chemistry. Folders under the root::

    s2ef/train                   relaxations (data.0000.lmdb) and MD (data.0001.lmdb), with
                                 data_log.*.txt that tells them apart (format dens_lmdb)
    s2ef/val_id, val_ood_ads,    relaxations
         val_ood_cat, val_ood_both
    is2re/val_id, ...            initial and relaxed structures of the same systems
    manifest.json                settings and statistics; written last
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import ase
import numpy as np
from torch_geometric.data import Data
from tqdm import tqdm

from dens_ocp.data.records.oc20_records import (
    add_s2ef_labels,
    geometry,
    write_lmdb,
    write_metadata,
)
from dens_ocp.data.structures import structure
from dens_ocp.errors import DensError
from dens_ocp.tools.demo.given import normalizers
from dens_ocp.tools.demo.trajectories import (
    VALIDATION_SPLITS,
    Frame,
    System,
    candidates,
    dynamics,
    relaxation,
    spread,
    start,
)

Relaxations = Callable[[str, int], Iterator[tuple[System, list[Frame]]]]
"""Split, number of systems -> systems with their trajectories."""

_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

_VERSION = 1  # of what is written for given settings


@dataclass(frozen=True)
class DataSettings:
    """Sizes of the data set.

    Attributes:
        seed: of every random number.
        train_systems: relaxations in train; ``frames`` frames of each.
        md_systems: how many of them are followed by MD; ``md_frames`` frames of each.
        val_systems: systems of each validation split; ``val_frames`` frames of each.
    """

    seed: int = 0
    train_systems: int = 140
    frames: int = 7
    md_systems: int = 20
    md_frames: int = 15
    md_every: int = 8
    val_systems: int = 12
    val_frames: int = 13


QUICK = DataSettings(
    train_systems=12, frames=8, md_systems=2, md_frames=8, val_systems=3, val_frames=6
)
"""A few seconds' worth, for tests."""


@dataclass(frozen=True)
class DemoData:
    """Paths and statistics of a data set on disk.

    Attributes:
        root: folder of ``s2ef`` and ``is2re``.
        normalizers: as in a fairchem config: mean and stdev of energies (eV) and forces
            (eV/Angstrom).
        counts: number of records by folder.
    """

    root: Path
    normalizers: dict[str, dict[str, float]]
    counts: dict[str, int]

    def s2ef(self, split: str) -> Path:
        return self.root / "s2ef" / split

    def is2re(self, split: str) -> Path:
        return self.root / "is2re" / split


def make(root: Path, settings: DataSettings | None = None, progress: bool = True) -> DemoData:
    """The data set in ``root``, made unless it is there with the same settings.

    It is written beside ``root`` and renamed when complete.

    Raises:
        DensError: ``root`` holds something else.
    """
    settings, root = settings or DataSettings(), Path(root)
    manifest = root / "manifest.json"
    if root.is_file() or (root.is_dir() and any(root.iterdir()) and not manifest.is_file()):
        raise DensError(
            f"{root} exists already and is not a demo data set (it has no manifest.json); give "
            "another --workdir, or remove it"
        )
    found = json.loads(manifest.read_text()) if manifest.is_file() else {"files": []}
    whole = all((root / name).is_file() for name in found["files"])
    if found.get("settings") != _identity(settings) or not whole:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as temporary:
            new = Path(temporary, "new")
            found = _write(new, settings, progress)
            if root.exists():  # an older version: it goes only now that there is a new one
                shutil.rmtree(root)
            new.rename(root)
    return DemoData(root, found["normalizers"], found["counts"])


def _identity(settings: DataSettings) -> dict[str, Any]:
    return {"version": _VERSION, "ase": ase.__version__, **asdict(settings)}


def _write(root: Path, settings: DataSettings, progress: bool) -> dict[str, Any]:
    """All files; returns what ``manifest.json`` says."""
    counts = {}
    total = settings.train_systems + len(VALIDATION_SPLITS) * settings.val_systems
    with (
        _pool() as pool,
        tqdm(total=total, desc="data: EMT relaxations", unit="system", disable=not progress) as bar,
    ):
        relaxations = partial(_relaxations, settings=settings, pool=pool, bar=bar)
        statistics = _write_train(root / "s2ef" / "train", settings, relaxations, pool, counts)
        for split in VALIDATION_SPLITS:
            _write_validation(root, split, settings, relaxations, counts)
    files = sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())
    manifest = {
        "settings": _identity(settings),
        "normalizers": statistics,
        "counts": counts,
        "files": files,
    }
    (root / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


@contextmanager
def _pool() -> Iterator[ProcessPoolExecutor]:
    """A process for each core of this one; those that are not done are not waited for."""
    pool = ProcessPoolExecutor(_CORES, get_context("fork"), initializer=_leave_interrupts)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C


def _relaxations(
    split: str, number: int, settings: DataSettings, pool: ProcessPoolExecutor, bar: tqdm
) -> Iterator[tuple[System, list[Frame]]]:
    """``number`` systems with their trajectories, whatever the number of processes; those that fail
    to relax are passed over."""
    systems = iter(candidates(split, settings.seed))
    begun: deque[tuple[System, Future]] = deque()
    found = 0
    while found < number:
        ahead = min(number - found, 2 * _CORES) - len(begun)
        for system in islice(systems, max(0, ahead)):
            begun.append((system, pool.submit(_relaxed, split, system, settings.seed)))
        if not begun:
            raise DensError(
                f"{split}: only {found} of {number} systems could be relaxed; ask for fewer systems"
            )
        system, future = begun.popleft()
        trajectory = future.result()
        if trajectory is not None:
            found += 1
            bar.update()
            yield system, trajectory


def _relaxed(split: str, system: System, seed: int) -> list[Frame] | None:
    rng = np.random.default_rng([seed, system.sid])
    # one in three starts rattled, for variety
    rattle = 0.1 if system.sid % 3 == 0 and split == "train" else 0.0
    return relaxation(system, start(system, rng, rattle))


def _write_train(
    folder: Path,
    settings: DataSettings,
    relaxations: Relaxations,
    pool: ProcessPoolExecutor,
    counts: dict[str, int],
) -> dict[str, dict[str, float]]:
    relaxed: list[tuple[System, Frame]] = []
    runs: list[tuple[System, Future]] = []
    for index, (system, trajectory) in enumerate(relaxations("train", settings.train_systems)):
        relaxed += [(system, frame) for frame in spread(trajectory, settings.frames)]
        if index < settings.md_systems:
            steps = settings.md_frames * settings.md_every
            seed = settings.seed * 1_000_000 + system.sid
            atoms = trajectory[-1].atoms
            run = pool.submit(dynamics, system, atoms, steps, settings.md_every, seed)
            runs.append((system, run))
    md = [(system, frame) for system, run in runs for frame in run.result()]
    everything = []
    for number, (kind, frames) in enumerate((("relaxations", relaxed), ("md", md))):
        data = [_s2ef(system, frame) for system, frame in frames]
        write_lmdb(folder / f"data.{number:04d}.lmdb", data)
        # OC20's log: trajectory, frame and reference energy, a line per record
        log = "".join(
            f"{kind}/{system.sid}.traj,frame{frame.fid},{-system.reference:.6f}\n"
            for system, frame in frames
        )
        (folder / f"data_log.{number:04d}.txt").write_text(log)
        everything += data
    write_metadata(folder, [record.natoms for record in everything])
    counts["s2ef/train"] = len(everything)
    counts["s2ef/train md"] = len(md)
    return normalizers([structure(record) for record in everything])


def _write_validation(
    root: Path,
    split: str,
    settings: DataSettings,
    relaxations: Relaxations,
    counts: dict[str, int],
) -> None:
    s2ef, is2re = [], []
    for system, trajectory in relaxations(split, settings.val_systems):
        frames = spread(trajectory, settings.val_frames)
        s2ef += [_s2ef(system, frame) for frame in frames]
        is2re.append(_is2re(system, trajectory))
    for task, data in (("s2ef", s2ef), ("is2re", is2re)):
        folder = root / task / split
        write_metadata(folder, write_lmdb(folder / "data.0000.lmdb", data))
        counts[f"{task}/{split}"] = len(data)


def _s2ef(system: System, frame: Frame) -> Data:
    """A record of an S2EF data set: :func:`~dens_ocp.data.records.oc20_records.geometry`, ``y``
    adsorption energy in eV, ``force`` (N, 3) float32 eV/Angstrom, ``fid``."""
    return add_s2ef_labels(geometry(frame.atoms, system.sid), frame.energy, frame.forces, frame.fid)


def _is2re(system: System, trajectory: Sequence[Frame]) -> Data:
    """A record of an IS2RE data set: ``pos``, ``y_init`` of the first frame, ``pos_relaxed``,
    ``y_relaxed`` of the last one; the rest as :func:`_s2ef`, without ``y``, ``force``, ``fid``."""
    first, last = trajectory[0], trajectory[-1]
    data = geometry(first.atoms, system.sid)
    data.y_init, data.y_relaxed = first.energy, last.energy
    data.pos_relaxed = geometry(last.atoms, system.sid).pos
    return data
