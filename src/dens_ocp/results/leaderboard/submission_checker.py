"""A strict checker of leaderboard files, written from their format.

It knows nothing of what writes them. The format (fairchem's TRAIN.md and make_submission_file.py,
and the page of the successor of EvalAI on Hugging Face): an npz file whose arrays are named
``{split}_{name}``, for every split of the board

==========  ============================  ===================================================
name        tasks                         array
==========  ============================  ===================================================
ids         all                           (S,) text; S2EF ``sid_fid``, else ``sid``; unique
energy      s2ef, is2re                   (S,) float, eV
forces      s2ef                          (A, 3) float, eV/Angstrom
pos         is2rs                         (A, 3) float, Angstrom, of all atoms
chunk_idx   s2ef, is2rs                   (S - 1,) int, where ``np.split`` cuts the A rows
==========  ============================  ===================================================

float16 is too coarse for total energies (OC22) and for positions.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from dens_ocp.errors import DensError, nearest
from dens_ocp.results.leaderboard import array_checks
from dens_ocp.results.leaderboard.array_checks import examples
from dens_ocp.results.leaderboard.boards import OC20, OC22, Board
from dens_ocp.results.leaderboard.reference import Reference
from dens_ocp.results.leaderboard.submission_report import Report, SplitSummary

ARRAYS = {
    "s2ef": ("ids", "energy", "forces", "chunk_idx"),
    "is2re": ("ids", "energy"),
    "is2rs": ("ids", "pos", "chunk_idx"),
}
"""Arrays of a split, by task."""


def check_submission(
    path: Path,
    task: str | None = None,
    board: Board | None = None,
    references: Mapping[str, Reference] | None = None,
    atoms: str = "free",
) -> Report:
    """Check a leaderboard file; every problem is found, not only the first.

    Args:
        path: npz file.
        task: ``s2ef``, ``is2re`` or ``is2rs``; None: from the names in the file.
        board: None: OC22 if the file has ``ood_ids`` and the like, else OC20.
        references: the test set by split; ids and numbers of atoms are compared with it.
        atoms: ``free`` or ``all``: the atoms whose forces the file has.

    Raises:
        DensError: there is no such file, or it is no npz file.
    """
    archive = _open(path)
    references = dict(references or {})
    with archive:
        names = archive.files
        report = Report(path, task or _task(names), board or _board(names))
        wanted = [f"{s}_{name}" for s in report.board.splits for name in ARRAYS[report.task]]
        _check_names(names, wanted, report)
        ids = {}
        for split in report.board.splits:
            if f"{split}_ids" in names:
                found = _check_split(archive, split, report, references.get(split), atoms)
                if found is not None:
                    ids[split] = found
    _compare_splits(ids, references, report)
    for split in report.board.splits:
        if references and split not in references:
            report.notes.append(f"{split}: no LMDB was given, so its ids are not checked")
    return report


def board_of(path: Path) -> Board:
    """The board that the names of the file's arrays belong to.

    Raises:
        DensError: there is no such file, or it is no npz file.
    """
    with _open(path) as archive:
        return _board(archive.files)


def _open(path: Path) -> np.lib.npyio.NpzFile:
    try:
        archive = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise DensError(f"{path} does not exist") from None
    except Exception as error:  # zipfile and numpy have many for damaged bytes
        raise DensError(f"{path} is not an npz file, or it is damaged: {error}") from None
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DensError(f"{path} holds a single array; a leaderboard file is an npz file")
    return archive


def _task(names: list[str]) -> str:
    if any(name.endswith("_forces") for name in names):
        return "s2ef"
    return "is2rs" if any(name.endswith("_pos") for name in names) else "is2re"


def _board(names: list[str]) -> Board:
    only_oc22 = {f"ood_{name}" for name in ("ids", "energy", "pos")}
    return OC22 if only_oc22.intersection(names) else OC20


def _check_names(names: list[str], wanted: list[str], report: Report) -> None:
    for split in report.board.splits:
        lacks = [name for name in ARRAYS[report.task] if f"{split}_{name}" not in names]
        if len(lacks) == len(ARRAYS[report.task]):
            report.problems.append(f"{split}: the split is missing")
        elif lacks:
            missing = ", ".join(f"{split}_{name}" for name in lacks)
            report.problems.append(f"{split}: {missing} missing, which {report.task} requires")
    for name in sorted(set(names) - set(wanted)):
        report.problems.append(
            f"{name} is not an array of {report.board.name} {report.task}{nearest(name, wanted)}"
        )


def _check_split(
    archive: np.lib.npyio.NpzFile,
    split: str,
    report: Report,
    reference: Reference | None,
    atoms: str,
) -> np.ndarray | None:
    """Check the arrays of one split, one after the other; returns its ids."""

    def read(name: str) -> np.ndarray | None:
        if f"{split}_{name}" not in archive.files:
            return None
        try:
            with archive.zip.open(f"{split}_{name}.npy") as member:
                array = np.lib.format.read_array(member, allow_pickle=False)
                if member.read(1):  # to the end: there the checksum is compared
                    raise ValueError("it has more bytes than its shape needs")
                return array
        except Exception as error:
            why = "holds Python objects" if "pickle" in str(error) else f"is damaged: {error}"
            report.problems.append(f"{split}: {split}_{name} {why}")
            return None

    def note_problems(name: str, wrong: list[str]) -> bool:
        report.problems.extend(f"{split}: {split}_{name} {each}" for each in wrong)
        return not wrong

    ids = read("ids")
    if ids is None:
        return None
    ids_fit = note_problems("ids", array_checks.check_ids(ids))
    if ids.ndim != 1 or len(ids) == 0 or ids.dtype.kind not in "Uiu":
        return None
    if ids.dtype.kind != "U":
        report.notes.append(f"{split}: {split}_ids have dtype {ids.dtype}; fairchem writes text")
    names = ids.astype(str)
    summary = report.splits[split] = SplitSummary(len(names))
    too_coarse = {"pos": "positions need float32 or float64"}
    if report.board.prediction_dtype == "float32":
        too_coarse |= {
            "energy": "total energies need float32 (task.prediction_dtype: float32 when "
            "predicting)",
            "forces": f"{report.board.name} predictions are float32",
        }

    energy = read("energy") if "energy" in ARRAYS[report.task] else None
    if energy is not None:
        if note_problems(
            "energy", array_checks.check_floats(energy, None, too_coarse.get("energy"))
        ):
            note_problems("energy", _check_values(energy, names, None))
            _summarise_energy(energy, split, report)
        del energy

    key = {"s2ef": "forces", "is2rs": "pos"}.get(report.task)
    rows = read(key) if key else None
    if rows is not None:
        if note_problems(key, array_checks.check_floats(rows, 3, too_coarse.get(key))):
            summary.atoms = len(rows)
            summary.dtypes += (str(rows.dtype),)
            chunk_idx, bounds = read("chunk_idx"), None
            if chunk_idx is not None:
                wrong = array_checks.check_chunks(chunk_idx, len(names), len(rows))
                if note_problems("chunk_idx", wrong):
                    bounds = array_checks.chunk_bounds(chunk_idx, len(rows))
                    wrong = _check_counts(names, bounds, reference, report.task, atoms)
                    note_problems("chunk_idx", wrong)
            note_problems(key, _check_values(rows, names, bounds))
            if key == "forces":
                summary.largest_force = array_checks.largest_norm(rows)
    return names if ids_fit else np.unique(names)


def _check_values(array: np.ndarray, names: np.ndarray, bounds: np.ndarray | None) -> list[str]:
    """NaN and infinity, and by how much an array of energies is too long or short.

    Args:
        bounds: of structures, for an array with a row per atom.
    """
    wrong = []
    per_structure = array.ndim == 1 or array.shape[1] == 1
    if per_structure and len(array) != len(names):
        wrong.append(f"has {len(array)} entries for {len(names)} ids")
    rows = array_checks.rows_not_finite(array)
    if len(rows) == 0:
        return wrong
    overflow = ""
    if array.dtype == np.float16 and np.isinf(array[rows]).any():
        overflow = "; infinity in float16 is often an overflow (above 65504); predict with float32"
    if per_structure:
        where = f": {examples(names[rows[rows < len(names)]])}"
    elif bounds is None:
        where = f": the first is row {rows[0]}"
    else:
        structures = np.unique(np.searchsorted(bounds, rows, side="right") - 1)
        where = f", in {len(structures)} structure(s): {examples(names[structures])}"
    wrong.append(f"has NaN or infinity in {len(rows)} row(s){where}{overflow}")
    return wrong


def _summarise_energy(energy: np.ndarray, split: str, report: Report) -> None:
    if energy.ndim == 2:
        report.notes.append(
            f"{split}: {split}_energy has shape {energy.shape}, as fairchem 1.10 predicts it; "
            "the documented shape is (structures,), and `dens-ocp submission make` writes that "
            "shape"
        )
    report.splits[split].dtypes = (str(energy.dtype),)
    finite = energy[np.isfinite(energy)].astype(np.float64)
    if len(finite):
        report.splits[split].energy = (finite.min(), finite.mean(), finite.max())


def _check_counts(
    names: np.ndarray, bounds: np.ndarray, reference: Reference | None, task: str, atoms: str
) -> list[str]:
    """Compare the number of rows of each structure with its number of atoms in the LMDB."""
    counts = np.diff(bounds)
    if reference is None:
        empty = names[counts == 0]
        return [f"leaves {len(empty)} id(s) without atoms: {examples(empty)}"] if len(empty) else []
    key, every = ARRAYS[task][-2], task == "is2rs" or atoms == "all"
    of_system = pd.DataFrame({"all": reference.natoms, "free": reference.nfree})
    of_system = of_system.set_index(reference.names(task)).groupby(level=0).first()
    found = of_system.reindex(names)
    known = found["all"].notna().to_numpy()
    right, other = (
        found[which][known].to_numpy(np.int64)
        for which in (("all", "free") if every else ("free", "all"))
    )
    off = counts[known] != right
    if not off.any():
        return []
    first = np.flatnonzero(off)[0]
    text = (
        f"gives {np.count_nonzero(off)} id(s) a number of rows of {key} that differs from the "
        f"number of their {'atoms' if every else 'free atoms'}: {examples(names[known][off])} "
        f"({counts[known][first]}, expected {right[first]})"
    )
    if key == "forces" and (counts[known] == other).all():
        text += (
            "; these are forces of free atoms, not of all"
            if every
            else "; these are forces of all atoms: make the file with --atoms free, or give "
            "--atoms all if the leaderboard wants that"
        )
    return [text]


def _compare_splits(
    ids: dict[str, np.ndarray], references: dict[str, Reference], report: Report
) -> None:
    """Ids against the test sets, and splits against each other."""
    known = {split: each.names(report.task) for split, each in references.items()}
    for split, names in ids.items():
        if split not in known:
            continue
        foreign = np.setdiff1d(names, known[split])
        if len(foreign):
            text = f"{split}: {len(foreign)} id(s) are not in the test set: {examples(foreign)}"
            for other in known.keys() - {split}:
                theirs = np.count_nonzero(np.isin(foreign, known[other]))
                if theirs:
                    text += f"; {theirs} of them are ids of {other}: are the splits swapped?"
            report.problems.append(text)
        missing = np.setdiff1d(known[split], names)
        if len(missing):
            report.problems.append(
                f"{split}: {len(missing)} of the {len(known[split])} ids of the test set are "
                f"missing: {examples(missing)}"
            )
    for split, other in itertools.combinations(ids, 2):
        if split in known and other in known:
            continue  # compared above, with the sets themselves
        both = np.intersect1d(ids[split], ids[other])
        if len(both) == min(len(ids[split]), len(ids[other])):
            report.problems.append(
                f"{split} and {other} have the same ids ({examples(both)}): was the same file "
                "given twice?"
            )
        elif len(both):
            report.notes.append(
                f"{split} and {other} have {len(both)} id(s) in common: {examples(both)}"
            )
