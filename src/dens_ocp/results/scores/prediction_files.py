"""Reads what fairchem's ``predict`` and ``run-relaxations`` write."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dens_ocp.data.structures import Structure
from dens_ocp.errors import DensError


@dataclass(frozen=True)
class Predictions:
    """Predictions of a split.

    Attributes:
        ids: ``sid_fid`` (S2EF) or ``sid``, in the order of the file.
        energy: (S,), eV, in the dtype of the file.
        forces: S arrays (n, 3), eV/Angstrom, of the atoms predicted for (fairchem: free atoms); or
            None where the file has none.
        stress: (S, 3, 3), eV/Angstrom^3, or None.
    """

    ids: list[str]
    energy: np.ndarray
    forces: list[np.ndarray] | None
    stress: np.ndarray | None = None

    def only(self, ids: Collection[str]) -> Predictions:
        """The predictions of ``ids``."""
        places = [place for place, name in enumerate(self.ids) if name in ids]
        forces = None if self.forces is None else [self.forces[place] for place in places]
        stress = None if self.stress is None else self.stress[places]
        return Predictions(
            [self.ids[place] for place in places], self.energy[places], forces, stress
        )


def read_arrays(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
    """The ``required`` arrays of an npz file and those ``optional`` ones that it has; no pickles.

    Raises:
        DensError: no such file, or not an npz file, or one cut short or damaged, or without a
            required array.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise DensError(f"{path} does not exist") from None
    except Exception as error:  # zipfile, zlib and numpy have many for damaged bytes
        raise DensError(f"{path} cannot be read as an npz file: {error}") from None
    for name in required:
        if name not in arrays:
            raise DensError(f"{path} has no {name!r} (it has: {', '.join(arrays) or 'nothing'})")
    return {name: arrays[name] for name in (*required, *optional) if name in arrays}


def read_predictions(path: Path) -> Predictions:
    """Read the npz that fairchem's ``predict`` wrote for one split.

    Raises:
        DensError: an unreadable file, or one without ``ids`` and ``energy``, or whose ``chunk_idx``
            does not cut ``forces`` into as many pieces as there are ids, or a stress of another
            number of structures.
    """
    arrays = read_arrays(path, ("ids", "energy"), ("forces", "chunk_idx", "stress"))
    ids = [str(each) for each in arrays["ids"]]
    energy = arrays["energy"].reshape(-1)
    if len(energy) != len(ids):
        raise DensError(f"{path} has {len(ids)} ids and {len(energy)} energies")
    forces = None
    if "forces" in arrays:
        forces = split_rows(arrays["forces"], arrays.get("chunk_idx"), len(ids), path)
    stress = arrays.get("stress")
    if stress is not None:
        if stress.size != 9 * len(ids):
            raise DensError(f"{path} has {len(ids)} ids and a stress of shape {stress.shape}")
        stress = stress.reshape(-1, 3, 3)
    return Predictions(ids, energy, forces, stress)


def split_rows(
    rows: np.ndarray, chunk_idx: np.ndarray | None, count: int, path: Path
) -> list[np.ndarray]:
    """Cut rows of atoms (n, 3) at ``chunk_idx`` (count - 1,) into ``count`` structures.

    Raises:
        DensError: they do not fit together.
    """
    starts = np.array([], np.int64) if chunk_idx is None else np.asarray(chunk_idx)
    if (
        rows.ndim != 2
        or rows.shape[1] != 3
        or len(starts) != max(count - 1, 0)
        or (np.diff(starts, prepend=0, append=len(rows)) < 0).any()
    ):
        raise DensError(
            f"{path}: chunk_idx with {len(starts)} entries does not cut an array of shape "
            f"{rows.shape} into {count} structures"
        )
    return np.split(rows, starts)


def on_free_atoms(forces: np.ndarray, structure: Structure) -> np.ndarray:
    """(n, 3) float64 predicted forces on the free atoms, of forces on these, or on all.

    Raises:
        DensError: forces of another number of atoms.
    """
    forces, free = np.asarray(forces, np.float64), structure.free
    if len(forces) == np.count_nonzero(free):
        return forces
    if len(forces) == len(free):
        return forces[free]
    raise DensError(
        f"{structure.id}: {len(forces)} forces are predicted for a structure of {len(free)} atoms, "
        f"{np.count_nonzero(free)} of them free; are these predictions of another data set?"
    )


def energies_of_npz(path: Path, hybrid: bool = False) -> dict[str, float]:
    """Predicted energies by id, eV.

    Args:
        hybrid: ids are ``sid_fid`` of relaxed structures; the result is by sid.

    Raises:
        DensError: as :func:`read_predictions`; an id twice.
    """
    predictions = read_predictions(path)
    names = [system_of(name) for name in predictions.ids] if hybrid else predictions.ids
    energies = dict(zip(names, predictions.energy.astype(np.float64).tolist(), strict=True))
    _check_unique(names, path)
    return energies


def _check_unique(names: list[str], path: Path) -> None:
    found, counts = np.unique(names, return_counts=True)
    if (counts > 1).any():
        raise DensError(
            f"{path} has {found[counts > 1][0]} more than once; ids must be unique "
            f"({np.count_nonzero(counts > 1)} are not)"
        )


def system_of(name: str) -> str:
    """The sid in ``sid_fid``; an id without fid is a sid.

    >>> system_of("12_3"), system_of("12")
    ('12', '12')
    """
    return name.rpartition("_")[0] or name


def positions_of_npz(path: Path) -> dict[str, np.ndarray]:
    """Relaxed positions (N, 3) of all atoms, Angstrom, by sid, from fairchem's
    ``relaxed_positions.npz``.

    Raises:
        DensError: an unreadable file, or one whose arrays do not fit together; an id twice.
    """
    arrays = read_arrays(path, ("ids", "pos"), ("chunk_idx",))
    ids = [str(each) for each in arrays["ids"]]
    _check_unique(ids, path)
    pieces = split_rows(arrays["pos"], arrays.get("chunk_idx"), len(ids), path)
    return dict(zip(ids, pieces, strict=True))
