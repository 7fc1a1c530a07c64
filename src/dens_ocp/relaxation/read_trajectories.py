"""Reads the trajectories of relaxations that ``run-relaxations`` wrote.

A trajectory is renamed to ``<sid>.traj`` when the relaxation of its batch has ended, converged or
at the step limit; until then it is ``.<sid>.traj_unfinished``, or ``<sid>.traj_tmp`` of plain
fairchem (:mod:`~dens_ocp.relaxation.trajectory_files`). So files tell that a relaxation did not
finish when

- there is only the unfinished one: it was stopped, or is running;
- the ``.traj`` has no frame, or its last frame has no energy or cannot be read;
- a system of the data set has no trajectory. Which those are says the data set; how many, if the
  relaxations are of our trainer, ``relaxations.json``.

They do not tell whether it converged: the number of steps that were allowed is not in them. A last
frame with a force above fmax may be the end of a relaxation that used all its steps, and counts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import Trajectory
from tqdm import tqdm

from dens_ocp.errors import DensError
from dens_ocp.relaxation import trajectory_files

NO_TRAJECTORY = "no trajectory"


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
        systems: sids that must be there, those of the data set.
        last_frame: of unfinished relaxations take the last frame that can be read.
        progress: show a bar.

    Raises:
        DensError: no such folder, or no trajectory in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DensError(f"{folder} is not a folder of trajectories (<sid>.traj)")
    done, begun = trajectory_files.all_finished(folder), trajectory_files.all_unfinished(folder)
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
            frame, wrong = None, NO_TRAJECTORY
        if wrong is not None:
            relaxed.unfinished[sid] = wrong
        if frame is not None and (wrong is None or last_frame):
            relaxed.energies[sid] = float(frame.get_potential_energy())
            relaxed.positions[sid] = frame.get_positions()
            if (force := _max_force(frame)) is not None:
                relaxed.max_forces[sid] = force
    return relaxed


def _last_frame(path: Path) -> tuple[Atoms | None, str | None]:
    """The last frame with an energy, and what is wrong with the file."""
    wrong = None
    try:
        with Trajectory(path) as frames:
            if len(frames) == 0:
                return None, f"{path.name} has no frame"
            for index in reversed(range(len(frames))):
                try:
                    frame = frames[index]
                    frame.get_potential_energy()
                    return frame, wrong
                except (PropertyNotImplementedError, RuntimeError):
                    wrong = wrong or f"{path.name}: its last frame has no energy"
                except Exception as error:  # whatever ASE says to half a frame
                    wrong = wrong or _damaged(path, error)
    except Exception as error:
        return None, _damaged(path, error)
    return None, wrong


def _damaged(path: Path, error: Exception) -> str:
    return f"{path.name} is damaged ({type(error).__name__})"


def _max_force(frame: Atoms) -> float | None:
    """Largest norm of a force; ASE sets those on fixed atoms to zero."""
    try:
        return float(np.linalg.norm(frame.get_forces(), axis=1).max())
    except (PropertyNotImplementedError, RuntimeError):
        return None


def energies_of_trajectories(folder: Path) -> dict[str, float]:
    """Energy of the last frame, eV, by sid: the predicted relaxed energies.

    Raises:
        DensError: no trajectory, or relaxations that did not finish.
    """
    return _finished(folder).energies


def positions_of_trajectories(folder: Path) -> dict[str, np.ndarray]:
    """Positions (N, 3) of all atoms in the last frame, Angstrom, by sid.

    Raises:
        DensError: no trajectory, or relaxations that did not finish.
    """
    return _finished(folder).positions


def check_all_there(folder: Path, relaxed: Relaxed) -> None:
    """Every system of the data set has a trajectory, as far as the folder knows.

    Args:
        folder: of the trajectories. relaxed: what was read from it.

    Raises:
        DensError: there are fewer than the data set has systems.
    """
    systems = trajectory_files.number_of_systems(folder)
    there = len({*relaxed.energies, *relaxed.unfinished})
    if systems is not None and there < systems:
        raise DensError(
            f"{folder} holds trajectories of {there} of {systems} systems; finish the relaxations "
            "(run-relaxations again), or name the others with the LMDB (--lmdb SPLIT=PATH)"
        )


def _finished(folder: Path) -> Relaxed:
    relaxed = read_relaxed(folder)
    check_all_there(Path(folder), relaxed)
    if relaxed.unfinished:
        raise DensError(f"{folder}: {unfinished_message(relaxed.unfinished)}")
    return relaxed


def unfinished_message(unfinished: dict[str, str], shown: int = 5) -> str:
    """What did not finish: the number, and the first ``shown``."""
    first = "; ".join(f"{sid}: {why}" for sid, why in list(unfinished.items())[:shown])
    more = f"; and {len(unfinished) - shown} more" if len(unfinished) > shown else ""
    return f"{len(unfinished)} relaxation(s) did not finish ({first}{more})"
