"""Trajectories of relaxations: ``<traj_dir>/<sid>.traj``, there when the relaxation has ended.

A trajectory gets that name when the relaxation of its batch has ended, converged or at the step
limit; until then it is ``.<sid>.traj_unfinished``, or ``<sid>.traj_tmp`` of plain fairchem. So
files tell that a relaxation did not finish when

- there is only the unfinished one: it was stopped, or is running;
- the ``.traj`` has no frame, or its last frame has no energy or cannot be read;
- a system of the data set has no trajectory. Which those are says the data set; how many, if the
  relaxations are of our trainer, ``relaxations.json``.

They do not tell whether it converged: the number of steps that were allowed is not in them. A last
frame with a force above fmax may be the end of a relaxation that used all its steps, and counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from ase.io.trajectory import TrajectoryReader, TrajectoryWriter
from tqdm import tqdm

from dens_ocp import whole_files
from dens_ocp.errors import DensError

SETTINGS_FILE = "relaxations.json"
OPTION = "task.relax_opt.traj_dir"
"""Names the folder of fairchem's relaxations."""
_SYSTEMS = "systems"
"""Entry of the settings file: number of systems of the data set that is relaxed."""
_UNFINISHED = ".traj_unfinished"
"""End of a hidden file's name: the system is being relaxed, or the run was killed."""


# ---- names -------------------------------------------------------------------------------------


def _all_unfinished(folder: Path) -> dict[str, Path]:
    return {path.name[1 : -len(_UNFINISHED)]: path for path in folder.glob(f".*{_UNFINISHED}")}


def _settings(folder: Path) -> dict[str, Any] | None:
    """What the settings file of a folder holds; None: there is none that can be read."""
    try:
        content = json.loads((folder / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def number_of_systems(folder: Path) -> int | None:
    """Of the data set that was relaxed into a folder; None: not known."""
    return (_settings(folder) or {}).get(_SYSTEMS)


# ---- writing -----------------------------------------------------------------------------------


@contextmanager
def writing(folder: Path, names: Sequence[str]) -> Iterator[list[TrajectoryWriter]]:
    """Writers of one trajectory per name, which get their final names when the context ends.

    After an error nothing is left; after a kill hidden files are, which the next run overwrites.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = [folder / f".{name}{_UNFINISHED}" for name in names]
    try:
        with ExitStack() as open_files:
            # ASE lets MPI's rank 0 alone write; ranks here have systems of their own
            yield [
                open_files.enter_context(TrajectoryWriter(path, mode="w", master=True))
                for path in temporary
            ]
        for path, name in zip(temporary, names, strict=True):
            whole_files.replace(path, folder / f"{name}.traj")
    finally:
        for path in temporary:
            path.unlink(missing_ok=True)


# ---- of a run that goes on ----------------------------------------------------------------------


class Finished(NamedTuple):
    """The first and the last frame of a finished trajectory; the last one has the energy (eV) and
    forces (eV/Angstrom; zero on fixed atoms) that the model says of it."""

    initial: Atoms
    relaxed: Atoms


def read(path: Path) -> Finished | None:
    """The trajectory, or None if it is not there, empty, damaged, or if its last frame has not what
    a relaxation leaves: finite positions, a finite energy, a finite force for each atom."""
    try:
        with TrajectoryReader(path) as frames:
            finished = Finished(frames[0], frames[-1])
        energy, forces = (finished.relaxed.calc.results[name] for name in ("energy", "forces"))
        positions = finished.relaxed.positions
        if np.ndim(energy) != 0 or np.shape(forces) != positions.shape:
            return None
        whole = all(np.isfinite(value).all() for value in (energy, forces, positions))
        return finished if whole else None
    except Exception:  # no file, or whatever a damaged one makes of ASE's reader
        return None


def read_of(
    folder: Path, name: str, numbers: np.ndarray, pos: np.ndarray, where: str = OPTION
) -> Finished | None:
    """The finished trajectory of a system, or None; see :func:`read`.

    Args:
        folder, name: of the trajectory.
        numbers: (N,) atomic numbers of the system. pos: (N, 3) its initial positions, Angstrom.
        where: the option that names the folder, for messages.

    Raises:
        DensError: a trajectory of another system.
    """
    finished = read(folder / f"{name}.traj")
    if finished is not None and not (
        np.array_equal(finished.initial.numbers, numbers)
        and np.array_equal(finished.initial.positions, pos.astype(np.float64))
    ):
        raise DensError(
            f"{where}: {folder / name}.traj starts from another structure than the system {name} "
            "of the data set to relax; give every data set its own folder"
        )
    return finished


# ---- whose folder it is --------------------------------------------------------------------------


def weights_digest(model: torch.nn.Module, others: Mapping[str, torch.nn.Module]) -> str:
    """A digest of a model's parameters, and of the state of ``others`` (normalizers, references);
    buffers of the model follow from its config."""
    digest = hashlib.sha256()
    states = dict(model.named_parameters())
    for key in sorted(others):
        states |= {f"{key}.{name}": value for name, value in others[key].state_dict().items()}
    for name, value in states.items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def claim(
    folder: Path,
    settings: Mapping[str, Any],
    overwrite: bool = False,
    systems: int | None = None,
    where: str = OPTION,
) -> None:
    """Write ``settings`` into the folder, or find that its trajectories are of the same ones.

    Files that a killed run left unfinished are removed. With ``overwrite`` what is there does not
    matter. ``systems``, the number of them, is written down for those who read the folder.
    ``where`` is the option that names the folder.

    Raises:
        DensError: finished trajectories of another checkpoint or of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for path in _all_unfinished(folder).values():
        path.unlink()
    path = folder / SETTINGS_FILE
    settings = json.loads(json.dumps(settings))
    there = _settings(folder)
    known = None if there is None else there.pop(_SYSTEMS, None)
    if there == settings and known == systems:
        return
    if there != settings and not overwrite and any(map(read, folder.glob("*.traj"))):
        raise DensError(
            f"{where}: {folder} holds trajectories of "
            f"{_difference(there, settings)}; give another folder, or delete this one"
        )
    content = settings if systems is None else {**settings, _SYSTEMS: systems}
    whole_files.write_text(path, json.dumps(content, indent=1) + "\n")


def _difference(there: Any, settings: Mapping[str, Any]) -> str:
    if not isinstance(there, dict):
        return (
            f"unknown origin (no {SETTINGS_FILE} in it; stock fairchem leaves the relaxed "
            "structure out)"
        )
    changed = [name for name in settings if there.get(name) != settings[name]]
    if changed == ["weights"]:
        return "another checkpoint"
    changes = [f"{name} {there.get(name)} there, {settings[name]} now" for name in changed
               if name != "weights"]  # fmt: skip
    return f"other settings: {', '.join(changes)}"


# ---- of a run that is over, for scores and leaderboard files -------------------------------------


@dataclass
class Relaxed:
    """Last frames of the trajectories of a folder, sorted by sid as fairchem's npz files are.

    Attributes:
        energies: eV by sid. positions: (N, 3) Angstrom by sid, all atoms.
        max_forces: largest norm of a force on a free atom, eV/Angstrom, by sid; systems whose
            frames have no forces are left out.
        unfinished: what is wrong, by sid; see the module. Their last frame, where there is one, is
            in ``energies`` and ``positions`` only if asked for.
    """

    energies: dict[str, float] = field(default_factory=dict)
    positions: dict[str, np.ndarray] = field(default_factory=dict)
    max_forces: dict[str, float] = field(default_factory=dict)
    unfinished: dict[str, str] = field(default_factory=dict)

    def above(self, fmax: float) -> list[str]:
        """Sids of last frames with a force above ``fmax`` (eV/Angstrom) on a free atom."""
        return [sid for sid, force in self.max_forces.items() if force > fmax]


def read_relaxed(
    folder: Path,
    systems: Collection[str] = (),
    last_frame: bool = False,
    progress: bool = False,
) -> Relaxed:
    """Read the last frame of every trajectory in ``folder``.

    Args:
        folder: of ``<sid>.traj``.
        systems: sids that must be there, those of the data set. Without, as many as the folder's
            ``relaxations.json`` says, if there is one.
        last_frame: of unfinished relaxations take the last frame that can be read.
        progress: show a bar.

    Raises:
        DensError: no such folder, or no trajectory in it, or fewer than the data set has systems.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DensError(f"{folder} is not a folder of trajectories (<sid>.traj)")
    done = {path.stem: path for path in folder.glob("*.traj")}
    begun = {path.stem: path for path in folder.glob("*.traj_tmp")} | _all_unfinished(folder)
    if not done and not begun:
        raise DensError(f"{folder} holds no trajectory (<sid>.traj)")
    relaxed = Relaxed()
    for sid in tqdm(sorted({*done, *begun, *systems}), desc=folder.name, disable=not progress):
        if sid in done:
            frame, wrong = _last_frame(done[sid])
        elif sid in begun:
            frame, wrong = _last_frame(begun[sid])
            wrong = f"{begun[sid].name}: its relaxation was stopped, or is running"
        else:
            frame, wrong = None, "no trajectory"
        if wrong is not None:
            relaxed.unfinished[sid] = wrong
        if frame is not None and (wrong is None or last_frame):
            relaxed.energies[sid] = float(frame.get_potential_energy())
            relaxed.positions[sid] = frame.get_positions()
            if "forces" in frame.calc.results:  # ASE sets those on fixed atoms to zero
                forces = frame.get_forces()
                relaxed.max_forces[sid] = float(np.linalg.norm(forces, axis=1).max())
    wanted, there = number_of_systems(folder), len(done.keys() | begun.keys())
    if not systems and wanted is not None and there < wanted:
        raise DensError(
            f"{folder} holds trajectories of only {there} of {wanted} systems; finish the "
            "relaxations (run-relaxations again), or give the LMDB, so that the missing systems "
            "are known (--lmdb SPLIT=PATH)"
        )
    return relaxed


def _last_frame(path: Path) -> tuple[Atoms | None, str | None]:
    """The last frame with an energy, and what is wrong with the file."""
    wrong = None
    try:
        with TrajectoryReader(path) as frames:
            if len(frames) == 0:
                return None, f"{path.name} has no frame"
            for index in reversed(range(len(frames))):
                try:
                    frame = frames[index]
                except Exception as error:  # whatever ASE says to half a frame
                    wrong = wrong or f"{path.name} is damaged ({type(error).__name__})"
                    continue
                if frame.calc is not None and "energy" in frame.calc.results:
                    return frame, wrong
                wrong = wrong or f"{path.name}: its last frame has no energy"
    except Exception as error:
        wrong = f"{path.name} is damaged ({type(error).__name__})"
    return None, wrong


def relaxed_systems(folder: Path) -> Relaxed:
    """The last frames of all trajectories in ``folder``, whose relaxations have finished.

    Raises:
        DensError: as of :func:`read_relaxed`; relaxations that did not finish.
    """
    relaxed = read_relaxed(folder)
    if relaxed.unfinished:
        raise DensError(f"{folder}: {unfinished_message(relaxed.unfinished)}")
    return relaxed


def unfinished_message(unfinished: dict[str, str], shown: int = 5) -> str:
    """What did not finish: the number, and the first ``shown``."""
    first = "; ".join(f"{sid}: {why}" for sid, why in list(unfinished.items())[:shown])
    more = f"; and {len(unfinished) - shown} more" if len(unfinished) > shown else ""
    return f"{len(unfinished)} relaxation(s) did not finish ({first}{more})"
