"""Reads relaxation trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase.io import Trajectory
from tqdm import tqdm


@dataclass(frozen=True)
class Trace:
    """A relaxation.

    Attributes:
        sid: of the system.
        energies: (frames,) predicted, eV. max_forces: (frames,) largest force on a free atom,
            eV/Angstrom.
        label: labelled energy of the relaxed structure, eV, or None.
        path: of its trajectory, or None.
    """

    sid: str
    energies: np.ndarray
    max_forces: np.ndarray
    label: float | None
    path: Path | None = None


@dataclass(frozen=True)
class Relaxations:
    """All relaxations of a split.

    Attributes:
        traces: of some systems.
        systems: number of trajectories. unreadable: empty or damaged ones among them.
        steps: (n,) frames less one. last_forces: (n,) eV/Angstrom, largest force on a free atom
            in the last frame.
        energy_errors: (m,) absolute errors of the last energy, eV, of systems with a label.
    """

    traces: list[Trace]
    systems: int
    unreadable: int
    steps: np.ndarray
    last_forces: np.ndarray
    energy_errors: np.ndarray

    @property
    def energy_mae(self) -> float | None:
        """IS2RE energy MAE, meV; None without labels."""
        return 1000 * float(self.energy_errors.mean()) if len(self.energy_errors) else None

    def converged(self, fmax: float) -> np.ndarray:
        """(n,) bool: the last frame has no force above ``fmax`` (eV/Angstrom) on a free atom.

        Stock fairchem does not write the converged frame (``optimizers/lbfgs_torch.py``); of its
        trajectories this is too strict.
        """
        return self.last_forces <= fmax


def read_relaxations(folder: Path, labels: Mapping[str, float], traces: int) -> Relaxations | None:
    """Read ``<sid>.traj`` files: of all their last frames, of ``traces`` of them every frame.

    Args:
        folder: of the files.
        labels: energy of the relaxed structure by sid, eV.
        traces: number of systems, evenly spaced in the order of their names.

    Returns:
        None if there are no trajectories.
    """
    paths = sorted(folder.glob("*.traj"))
    if not paths:
        return None
    whole = {paths[index] for index in np.linspace(0, len(paths) - 1, traces).astype(int)}
    drawn, steps, forces, errors, unreadable = [], [], [], [], 0
    for path in tqdm(paths, desc=f"trajectories of {folder.parent.name}", leave=False):
        label = labels.get(path.stem)
        try:
            with Trajectory(path) as frames:
                count = len(frames)
                read = [_of(frame) for frame in (frames if path in whole else [frames[-1]])]
        except Exception:  # whatever ASE's reader stumbles on in an empty or half-written file
            unreadable += 1
            continue
        energies, largest = np.array(read).T
        if path in whole:
            drawn.append(Trace(path.stem, energies, largest, label, path))
        steps.append(count - 1)
        forces.append(largest[-1])
        if label is not None:
            errors.append(abs(energies[-1] - label))
    return Relaxations(
        drawn, len(paths), unreadable, np.array(steps), np.array(forces), np.array(errors)
    )


def _of(frame) -> tuple[float, float]:
    # forces on fixed atoms are zero here (ASE applies constraints)
    lengths = np.linalg.norm(frame.get_forces(), axis=1)
    return float(frame.get_potential_energy()), float(lengths.max(initial=0.0))
