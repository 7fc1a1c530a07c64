"""From what fairchem wrote for one split to the arrays of a leaderboard file.

fairchem's ``make_submission_file`` does this too. It is not called, because it

- takes every array of a prediction file over, energies of shape (S, 1) included, which fairchem
  1.10 predicts and the boards' documentation does not have;
- lists relaxations in the order of the file system, and fails at the first trajectory without
  frames;
- holds the arrays of all splits in memory until they are written.

A test compares our files with its files where it can make them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dens_ocp.errors import DensError
from dens_ocp.relaxation.trajectories import (
    number_of_systems,
    read_relaxed,
    unfinished_message,
)
from dens_ocp.results.leaderboard.reference import Reference
from dens_ocp.results.scores.prediction_files import read_arrays, system_of

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Choices:
    """What the user may choose.

    Attributes:
        atoms: ``free`` or ``all``: the atoms whose forces are written (S2EF).
        fill_fixed: with ``all``, and predictions of free atoms: fixed atoms get zero, as ASE gives
            them for constrained atoms.
        hybrid: IS2RE from predictions ``sid_fid`` on relaxed structures, fairchem's ``--hybrid``.
        unfinished: ``refuse``, or ``last-frame``: of relaxations that did not finish.
        fmax: eV/Angstrom; report relaxations whose last frame has a larger force. None: do not.
        progress: show bars.
    """

    atoms: str = "free"
    fill_fixed: bool = False
    hybrid: bool = False
    unfinished: str = "refuse"
    fmax: float | None = None
    progress: bool = True


Source = tuple[Arrays, list[str]]
"""The arrays of one split, by their names without the split, and notes for the user."""


def read_source(task: str, path: Path, reference: Reference | None, choices: Choices) -> Source:
    """Read the results of one split.

    Args:
        task: ``s2ef``: prediction npz. ``is2re``: folder of trajectories, or prediction npz.
            ``is2rs``: ``relaxed_positions.npz``, or folder of trajectories.
        path: of the npz file or folder.
        reference: the test set of the split, if it is known.

    Raises:
        DensError: a file that cannot be read or lacks an array; relaxations that did not finish;
            forces of other atoms than asked for.
    """
    if task != "s2ef" and path.is_dir():
        return _from_trajectories(task, path, reference, choices)
    if path.is_dir():
        raise DensError(f"{path} is a folder; {task} needs the npz file that predict wrote")
    if task == "is2rs":
        return read_arrays(path, ("ids", "pos", "chunk_idx")), []
    return _s2ef(path, reference, choices) if task == "s2ef" else _is2re(path, choices.hybrid)


def _per_structure(array: np.ndarray) -> np.ndarray:
    """(S,) of (S,) or (S, 1); others as they are, for the checker to refuse."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _s2ef(path: Path, reference: Reference | None, choices: Choices) -> Source:
    arrays = read_arrays(path, ("ids", "energy", "forces", "chunk_idx"))
    arrays["energy"] = _per_structure(arrays["energy"])
    if choices.atoms == "all" and reference is None:
        raise DensError(
            f"--atoms all: only the LMDB shows whether {path} has the forces of all atoms; give "
            "it with --lmdb"
        )
    if reference is None:
        return arrays, []
    return _with_atoms_asked_for(arrays, path, reference, choices)


def _with_atoms_asked_for(
    arrays: Arrays, path: Path, reference: Reference, choices: Choices
) -> Source:
    """Forces of free or of all atoms; unchanged where ids or numbers of atoms do not match the test
    set, which the checker then says."""
    ids, forces, chunk_idx = arrays["ids"], arrays["forces"], arrays["chunk_idx"]
    if (ids.ndim, forces.ndim, chunk_idx.shape) != (1, 2, (len(ids) - 1,)):
        return arrays, []
    index = {name: row for row, name in enumerate(reference.ids.tolist())}
    place = np.array([index.get(str(name), -1) for name in ids])
    if (place < 0).any():
        return arrays, []
    counts = np.diff(chunk_idx, prepend=0, append=len(forces))
    natoms, nfree = reference.natoms[place], reference.nfree[place]
    has_all, has_free = (counts == natoms).all(), (counts == nfree).all()
    if choices.atoms == "free" and has_all and not has_free:
        arrays["forces"] = forces[_free(reference, place)]
        arrays["chunk_idx"] = np.cumsum(nfree)[:-1]
        return arrays, ["forces of all atoms were reduced to those of free atoms"]
    if choices.atoms == "all" and has_free and not has_all:
        if not choices.fill_fixed:
            raise DensError(
                f"--atoms all: {path} has the forces of free atoms only, as fairchem's predict "
                "writes them; add --fill-fixed to write zero for fixed atoms, or give --atoms "
                "free"
            )
        filled = np.zeros((natoms.sum(), 3), forces.dtype)
        filled[_free(reference, place)] = forces
        arrays["forces"], arrays["chunk_idx"] = filled, np.cumsum(natoms)[:-1]
        return arrays, ["forces of fixed atoms were set to zero"]
    return arrays, []


def _free(reference: Reference, place: np.ndarray) -> np.ndarray:
    """(A,) bool: the free atoms of the structures ``place`` (S,) of the test set, in that order."""
    fixed = np.split(reference.fixed, np.cumsum(reference.natoms)[:-1])
    return ~np.concatenate([fixed[index] for index in place])


def _is2re(path: Path, hybrid: bool) -> Source:
    arrays = read_arrays(path, ("ids", "energy"))
    arrays["energy"] = _per_structure(arrays["energy"])
    if hybrid:
        arrays["ids"] = np.array([system_of(str(name)) for name in arrays["ids"]])
    return arrays, []


def _from_trajectories(
    task: str, folder: Path, reference: Reference | None, choices: Choices
) -> Source:
    systems = () if reference is None else reference.sids.tolist()
    take_last = choices.unfinished == "last-frame"
    relaxed = read_relaxed(folder, systems, take_last, choices.progress)
    known = reference is not None or number_of_systems(folder) is not None
    if relaxed.unfinished and take_last and not known:
        raise DensError(
            f"--unfinished last-frame: {folder}: {unfinished_message(relaxed.unfinished)}; only "
            "the test set shows whether other systems have no trajectory at all; give it with "
            "--lmdb SPLIT=PATH"
        )
    without = {sid: why for sid, why in relaxed.unfinished.items() if sid not in relaxed.energies}
    if without:
        advice = (
            "relax them; they have no frame that can be read"
            if take_last
            else "finish them (run-relaxations again), or take the last frame that can be read "
            "with --unfinished last-frame"
        )
        raise DensError(f"{folder}: {unfinished_message(without)}; {advice}")
    notes = []
    if relaxed.unfinished:
        notes.append(f"last frames were taken: {unfinished_message(relaxed.unfinished)}")
    above = [] if choices.fmax is None else relaxed.above(choices.fmax)
    if above:
        more = f" and {len(above) - 3} more" if len(above) > 3 else ""
        notes.append(
            f"{len(above)} of {len(relaxed.energies)} last frames have a force above "
            f"{choices.fmax} eV/A: {', '.join(above[:3])}{more}"
        )
    ids = sorted(relaxed.energies)
    if task == "is2re":
        # trajectories hold a model's float32 energies as float64
        energy = np.array([relaxed.energies[sid] for sid in ids], np.float32)
        return {"ids": np.array(ids), "energy": energy}, notes
    positions = [relaxed.positions[sid] for sid in ids]
    chunk_idx = np.cumsum([len(each) for each in positions])[:-1]
    arrays = {"ids": np.array(ids), "pos": np.concatenate(positions), "chunk_idx": chunk_idx}
    return arrays, notes
