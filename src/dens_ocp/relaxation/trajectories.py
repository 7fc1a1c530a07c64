"""Relaxation trajectories: ``<traj_dir>/<sid>.traj``, there when finished, read when resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter

from dens_ocp import whole_files
from dens_ocp.errors import DensError
from dens_ocp.relaxation import trajectory_files
from dens_ocp.relaxation.trajectory_files import SETTINGS_FILE, SYSTEMS

# ---- writing -----------------------------------------------------------------------------------


@contextmanager
def writing(folder: Path, names: Sequence[str]) -> Iterator[list[TrajectoryWriter]]:
    """Writers of one trajectory per name, which get their final names when the context ends.

    After an error nothing is left; after a kill hidden files are, which the next run overwrites.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = [trajectory_files.unfinished(folder, name) for name in names]
    writers = []
    try:
        for path in temporary:
            # ASE lets MPI's rank 0 alone write; ranks here have systems of their own
            writers.append(TrajectoryWriter(path, mode="w", master=True))
        yield writers
        for writer in writers:
            writer.close()
        for path, name in zip(temporary, names, strict=True):
            whole_files.replace(path, trajectory_files.finished(folder, name))
    except BaseException:
        for writer in writers:
            writer.close()
        for path in temporary:
            path.unlink(missing_ok=True)
        raise


# ---- reading -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """A finished trajectory.

    Attributes:
        initial: the first frame. relaxed: the last one, with energy (eV) and forces
            (eV/Angstrom; zero on fixed atoms).
    """

    initial: Atoms
    relaxed: Atoms

    @property
    def results(self) -> dict[str, Any]:
        """The model's outputs for the relaxed structure."""
        return self.relaxed.calc.results


def read(path: Path) -> Finished | None:
    """The trajectory, or None if it is not there, empty, damaged, or if its last frame has not what
    a relaxation leaves: finite positions, a finite energy, a finite force for each atom."""
    if not path.is_file():
        return None
    try:
        with TrajectoryReader(path) as frames:
            finished = Finished(frames[0], frames[-1])
        energy, forces = finished.results["energy"], finished.results["forces"]
        positions = finished.relaxed.positions
        if np.ndim(energy) != 0 or np.shape(forces) != positions.shape:
            return None
        whole = all(np.isfinite(value).all() for value in (energy, forces, positions))
        return finished if whole else None
    except Exception:  # whatever a damaged file makes of ASE's reader
        return None


def read_of(folder: Path, name: str, numbers: np.ndarray, pos: np.ndarray) -> Finished | None:
    """The finished trajectory of a system, or None; see :func:`read`.

    Args:
        folder, name: of the trajectory.
        numbers: (N,) atomic numbers of the system. pos: (N, 3) its initial positions, Angstrom.

    Raises:
        DensError: a trajectory of another system.
    """
    finished = read(trajectory_files.finished(folder, name))
    if finished is None:
        return None
    if not (
        np.array_equal(finished.initial.numbers, numbers)
        and np.array_equal(finished.initial.positions, pos.astype(np.float64))
    ):
        raise DensError(
            f"task.relax_opt.traj_dir: {folder / name}.traj starts from another structure than the "
            f"system {name} of dataset.relax; give every data set a folder of its own"
        )
    return finished


# ---- whose folder it is --------------------------------------------------------------------------


def weights_digest(model: torch.nn.Module, others: Mapping[str, torch.nn.Module]) -> str:
    """A digest of a model's parameters, and of the state of ``others`` (normalizers, references);
    buffers of the model follow from its config."""
    digest = hashlib.sha256()
    states = chain(
        model.named_parameters(),
        ((f"{key}.{name}", value) for key in sorted(others)
         for name, value in others[key].state_dict().items()),
    )  # fmt: skip
    for name, value in states:
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def claim(
    folder: Path,
    settings: Mapping[str, Any],
    overwrite: bool = False,
    systems: int | None = None,
) -> None:
    """Write ``settings`` into the folder, or find that its trajectories are of the same ones.

    Files that a killed run left unfinished are removed. With ``overwrite`` what is there does not
    matter. ``systems``, the number of them, is written down for those who read the folder.

    Raises:
        DensError: finished trajectories of another checkpoint or of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in trajectory_files.all_unfinished(folder, of_fairchem=False).values():
        path.unlink()
    path = folder / SETTINGS_FILE
    settings = json.loads(json.dumps(settings))
    there = trajectory_files.settings(folder)
    known = None if there is None else there.pop(SYSTEMS, None)
    if there == settings and known == systems:
        return
    finished = trajectory_files.all_finished(folder).values()
    if there != settings and not overwrite and any(map(read, finished)):
        raise DensError(
            f"task.relax_opt.traj_dir: {folder} holds trajectories of "
            f"{_difference(there, settings)}; give another folder, or delete this one"
        )
    content = settings if systems is None else {**settings, SYSTEMS: systems}
    whole_files.write_text(path, json.dumps(content, indent=1) + "\n")


def _difference(there: Any, settings: Mapping[str, Any]) -> str:
    if not isinstance(there, dict):
        return (
            f"unknown origin (no {SETTINGS_FILE} in it; plain fairchem leaves the relaxed "
            "structure out)"
        )
    changed = [name for name in settings if there.get(name) != settings[name]]
    if changed == ["weights"]:
        return "another checkpoint"
    return "other settings: " + ", ".join(
        f"{name} {there.get(name)} there, {settings[name]} now"
        for name in changed
        if name != "weights"
    )
