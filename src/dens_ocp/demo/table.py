"""Errors of predictions, from files alone: prediction npz against LMDB, free atoms only.

Nothing of fairchem's evaluator is used, so the demo's numbers check it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import Trajectory
from torch_geometric.data import Data

from dens_ocp.errors import DensError

ENERGY_WITHIN = 0.02  # eV, OC20's threshold


@dataclass(frozen=True)
class Labels:
    """Energies (S,) eV and forces on free atoms, a list of S arrays (n, 3) eV/Angstrom."""

    energy: np.ndarray
    forces: list[np.ndarray]

    @property
    def all_forces(self) -> np.ndarray:
        """(n, 3) forces on the free atoms of all structures."""
        return np.concatenate(self.forces)

    def where(self, mask: np.ndarray) -> Labels:
        """The structures that ``mask`` (S,) bool picks."""
        forces = [each for each, picked in zip(self.forces, mask, strict=True) if picked]
        return Labels(self.energy[mask], forces)


@dataclass(frozen=True)
class Errors:
    """Errors over a data set.

    Attributes:
        energy_mae: meV. force_mae: meV/Angstrom, mean over components of free atoms.
        force_cosine: mean over free atoms of the cosine between predicted and true force.
        energy_within: share of structures, percent, with an energy error below 0.02 eV.
    """

    energy_mae: float
    force_mae: float
    force_cosine: float
    energy_within: float


def targets(records: Iterable[Data]) -> tuple[list[str], Labels]:
    """Ids ``sid_fid`` and labels (``y``, ``force``) of S2EF records."""
    ids, energies, forces = [], [], []
    for record in records:
        ids.append(f"{number(record.sid)}_{number(record.fid)}")
        energies.append(float(record.y))
        forces.append(record.force[record.fixed == 0].numpy().astype(np.float64))
    return ids, Labels(np.array(energies), forces)


def predictions(path: Path, ids: Sequence[str]) -> Labels:
    """What fairchem's ``predict`` wrote, in the order of ``ids``.

    Raises:
        DensError: the file lacks one of ``ids``, or holds more.
    """
    with np.load(path) as file:
        found = {str(name): index for index, name in enumerate(file["ids"])}
        energy = file["energy"].astype(np.float64).reshape(len(found), -1)[:, 0]
        forces = np.split(file["forces"].astype(np.float64), file["chunk_idx"])
    if set(found) != set(ids) or len(forces) != len(found):
        missing = sorted(set(ids) - set(found))
        raise DensError(
            f"{path} holds {len(found)} predictions for {len(set(ids))} structures"
            + (f" (missing: {missing[0]})" if missing else "")
            + "; sid and fid of every record must be unique"
        )
    order = [found[name] for name in ids]
    return Labels(energy[order], [forces[index] for index in order])


def errors(predicted: Labels, true: Labels) -> Errors:
    """Errors of ``predicted`` against ``true``, structure by structure in the same order."""
    energy = np.abs(predicted.energy - true.energy)
    mine, yours = predicted.all_forces, true.all_forces
    lengths = np.linalg.norm(mine, axis=1) * np.linalg.norm(yours, axis=1)
    cosine = (mine * yours).sum(1) / np.maximum(lengths, 1e-8)
    return Errors(
        energy_mae=1000 * float(energy.mean()),
        force_mae=1000 * float(np.abs(mine - yours).mean()),
        force_cosine=float(cosine.mean()),
        energy_within=100 * float((energy < ENERGY_WITHIN).mean()),
    )


def constant(train: Labels, like: Labels, zero_force: bool) -> Labels:
    """The trivial predictor: the training set's mean energy, and zero or its mean force."""
    force = np.zeros(3) if zero_force else train.all_forces.mean(0)
    return Labels(
        np.full_like(like.energy, train.energy.mean()),
        [np.broadcast_to(force, each.shape) for each in like.forces],
    )


@dataclass(frozen=True)
class RelaxationErrors:
    """Errors of relaxed structures: energy MAE in meV, and the mean distance of free atoms from
    where they should be, Angstrom: after the relaxation and before it."""

    energy_mae: float
    distance: float
    distance_before: float


def relaxation_errors(
    records: Sequence[Data], energies: dict[str, float], positions: dict[str, np.ndarray]
) -> RelaxationErrors:
    """Compare relaxations with IS2RE records.

    Args:
        records: ``y_relaxed`` (eV), ``pos``, ``pos_relaxed`` (N, 3) Angstrom, ``sid``.
        energies: predicted relaxed energy by sid, eV.
        positions: relaxed positions (N, 3) by sid, Angstrom.
    """
    wrong, after, before = [], [], []
    for record in records:
        sid, free = str(number(record.sid)), (record.fixed == 0).numpy()
        cell, relaxed = record.cell[0].numpy(), record.pos_relaxed.numpy()[free]
        wrong.append(abs(energies[sid] - record.y_relaxed))
        after.append(_distance(positions[sid][free], relaxed, cell))
        before.append(_distance(record.pos.numpy()[free], relaxed, cell))
    return RelaxationErrors(
        1000 * float(np.mean(wrong)), float(np.mean(after)), float(np.mean(before))
    )


def _distance(a: np.ndarray, b: np.ndarray, cell: np.ndarray) -> float:
    fractional = np.linalg.solve(cell.T.astype(float), (a - b).T.astype(float)).T
    fractional -= np.round(fractional)
    return float(np.linalg.norm(fractional @ cell, axis=1).mean())


def relaxed_positions(path: Path) -> dict[str, np.ndarray]:
    """Positions (N, 3) by sid from the ``relaxed_positions.npz`` of run-relaxations."""
    with np.load(path) as file:
        parts = np.split(file["pos"], file["chunk_idx"])
        return {str(name): part for name, part in zip(file["ids"], parts, strict=True)}


def relaxed_energies(folder: Path) -> dict[str, float]:
    """Last energy of each trajectory in ``folder``, eV, by sid."""
    energies = {}
    for path in sorted(folder.glob("*.traj")):
        with Trajectory(path) as frames:
            energies[path.stem] = float(frames[-1].get_potential_energy())
    return energies


def number(value: Any) -> int | str:
    """A sid or fid: a number, a string, or a tensor with one number."""
    return value.item() if hasattr(value, "item") else value


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Plain text, columns aligned: the first ``left`` to the left, the others to the right.

    >>> print(format_table(["split", "MAE"], [["val_id", "3.1"]]))
    split   MAE
    ------  ---
    val_id  3.1
    """
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    text = [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join(text)
