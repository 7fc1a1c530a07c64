"""Scores of predictions against labels, as the boards and the papers compute them.

fairchem's evaluator (``fairchem.core.modules.evaluator``) defines them, and is used: it is right
when energies have the shape (B,) and forces are those of free atoms. It is fed float64, so that
what is compared is what the files hold. Structures are read one at a time and scored
:data:`CHUNK` at a time, so a split needs no more memory than its predictions.

=====================  ========================================================================
energy MAE             mean over structures of |E - E'|
force MAE              mean over the components of the forces on free atoms of |F - F'|
force cosine           mean over free atoms of the cosine between F and F' (in float32)
EFwT                   share of structures with |E - E'| < 0.02 eV and every component of every
                       force on free atoms off by less than 0.03 eV/Angstrom
EwT                    share of structures with |E - E'| < 0.02 eV
DwT at d               share of structures whose free atoms are, in the mean and by the minimum
                       image, closer than d to where DFT relaxed them
average DwT            mean of DwT over d = 0.01, 0.011, ..., 0.499 Angstrom
=====================  ========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairchem.core.modules.evaluator import Evaluator, min_diff
from tqdm import tqdm

from dens_ocp.data.checks import check_lmdb_source
from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.relaxation.trajectories import relaxed_systems
from dens_ocp.results.scores.materials_scores import CellScores, CrystalErrors
from dens_ocp.results.scores.prediction_files import (
    Predictions,
    energies_of_npz,
    on_free_atoms,
    positions_of_npz,
    read_predictions,
)

CHUNK = 512
"""Structures that are handed to fairchem's evaluator at a time."""

DISTANCES = np.arange(0.01, 0.5, 0.001)
"""Thresholds of the average DwT, Angstrom: those of fairchem's
``average_distance_within_threshold``."""


@dataclass(frozen=True)
class S2EFScores:
    """Scores of a split; see the module for what they mean.

    Attributes:
        structures, atoms: number of structures, and of free atoms in them.
        energy_mae_meV: meV. force_mae_meV_per_A: meV/Angstrom. force_cosine: 1 is perfect.
        efwt_percent: percent.
        energy_per_atom_mae_meV: meV per atom. stress_mae_meV_per_A3: meV/Angstrom^3, mean over the
            nine components; both None where predictions or labels have no stress.
    """

    structures: int
    atoms: int
    energy_mae_meV: float
    force_mae_meV_per_A: float
    force_cosine: float
    efwt_percent: float
    energy_per_atom_mae_meV: float | None = None
    stress_mae_meV_per_A3: float | None = None


@dataclass(frozen=True)
class IS2REScores:
    """Scores of relaxed energies: their number, meV, percent."""

    structures: int
    energy_mae_meV: float
    ewt_percent: float


@dataclass(frozen=True)
class IS2RSScores:
    """Scores of relaxed structures.

    Attributes:
        structures: their number.
        average_dwt_percent: percent.
        dwt_percent: percent by threshold in Angstrom.
        mean_distance_A: mean over structures of the mean distance of free atoms, Angstrom.
    """

    structures: int
    average_dwt_percent: float
    dwt_percent: dict[float, float]
    mean_distance_A: float


Score = S2EFScores | IS2REScores | IS2RSScores | CellScores


def score_split(
    task: str, results: Path, section: Mapping[str, Any], split: str, hybrid: bool = False
) -> Score:
    """Score one split.

    Args:
        task: ``s2ef``, ``is2re``, ``is2rs``.
        results: prediction npz; or, not for s2ef, folder of trajectories.
        section: of the labelled data set: ``src`` and, if it is not ``lmdb``, ``format``.
        split: for messages.
        hybrid: IS2RE energies are by ``sid_fid``.

    Raises:
        DensError: files that cannot be read; ids that do not match; no labels.
    """
    check_lmdb_source(section["src"], f"--lmdb {split}")
    structures = open_structures(section, f"--lmdb {split}")
    bar = tqdm(structures, desc=split, total=len(structures))
    try:
        return score_structures(task, results, bar, hybrid)
    except DensError as error:
        raise DensError(f"{split}: {error}") from None


def score_structures(
    task: str, results: Path, structures: Iterable[Structure], hybrid: bool = False
) -> Score:
    """Score results against labelled structures; arguments and errors as of :func:`score_split`."""
    if task == "s2ef":
        return s2ef_scores(read_predictions(results), structures)
    if task == "is2re":
        if results.is_dir():
            return is2re_scores(relaxed_systems(results).energies, structures)
        return is2re_scores(energies_of_npz(results, hybrid), structures)
    if results.is_dir():
        return is2rs_scores(relaxed_systems(results).positions, structures)
    return is2rs_scores(positions_of_npz(results), structures)


def s2ef_scores(predictions: Predictions, structures: Iterable[Structure]) -> S2EFScores:
    """Score predictions of energies and forces.

    Args:
        predictions: of exactly these structures, in any order; forces of free atoms, or of all.
        structures: with energy and forces.

    Raises:
        DensError: ids that do not match; a structure without labels or without free atoms; forces
            of another number of atoms.
    """
    if predictions.forces is None:
        raise DensError("the predictions have no forces, but S2EF is scored on energies and forces")
    evaluator = Evaluator(
        eval_metrics={
            "energy": ["mae"],
            "forces": ["mae", "cosine_similarity", "energy_forces_within_threshold"],
        }
    )
    index = _index(predictions.ids)
    metrics: dict = {}
    atoms = 0
    crystals = None
    for chunk in _chunks(_labelled(structures, index, "id", "energy", "forces")):
        places = [index[each.id] for each in chunk]
        stress = None if predictions.stress is None else predictions.stress[places]
        crystals = crystals or CrystalErrors(stress is not None and chunk[0].stress is not None)
        crystals.add(chunk, predictions.energy[places], stress)
        for each in chunk:
            _check_free(each)
        forces = [
            on_free_atoms(predictions.forces[place], each)
            for place, each in zip(places, chunk, strict=True)
        ]
        natoms = torch.tensor([len(each) for each in forces])
        atoms += int(natoms.sum())
        metrics = evaluator.eval(
            {"energy": _tensor(predictions.energy[places]), "forces": _tensor(forces)},
            {
                "energy": _tensor([each.energy for each in chunk]),
                "forces": _tensor([each.forces[each.free] for each in chunk]),
                "natoms": natoms,
            },
            metrics,
        )
    return S2EFScores(
        structures=len(index),
        atoms=atoms,
        energy_mae_meV=1000 * metrics["energy_mae"]["metric"],
        force_mae_meV_per_A=1000 * metrics["forces_mae"]["metric"],
        force_cosine=metrics["forces_cosine_similarity"]["metric"],
        efwt_percent=100 * metrics["energy_forces_within_threshold"]["metric"],
        **crystals.scores,
    )


def is2re_scores(energies: Mapping[str, float], structures: Iterable[Structure]) -> IS2REScores:
    """Score relaxed energies.

    Args:
        energies: eV by sid, of exactly these structures.
        structures: with ``energy_relaxed``.

    Raises:
        DensError: ids that do not match; a structure without label.
    """
    evaluator = Evaluator(eval_metrics={"energy": ["mae", "energy_within_threshold"]})
    metrics: dict = {}
    for chunk in _chunks(_labelled(structures, energies, "sid", "energy_relaxed")):
        metrics = evaluator.eval(
            {"energy": _tensor([energies[each.sid] for each in chunk])},
            {"energy": _tensor([each.energy_relaxed for each in chunk])},
            metrics,
        )
    return IS2REScores(
        structures=len(energies),
        energy_mae_meV=1000 * metrics["energy_mae"]["metric"],
        ewt_percent=100 * metrics["energy_within_threshold"]["metric"],
    )


def is2rs_scores(
    positions: Mapping[str, np.ndarray],
    structures: Iterable[Structure],
    thresholds: Iterable[float] = (0.1, 0.3, 0.5),
) -> IS2RSScores:
    """Score relaxed structures.

    Uses the minimum image of fairchem's ``min_diff``; from the distances its
    ``average_distance_within_threshold`` follows without a pass over the structures per threshold.

    Args:
        positions: (N, 3) Angstrom of all atoms by sid, of exactly these structures.
        structures: with ``pos_relaxed``; periodic in all directions, as fairchem takes them.
        thresholds: of DwT, Angstrom.

    Raises:
        DensError: ids that do not match; a structure without label or without free atoms; another
            number of atoms.
    """
    distances = np.array(
        [
            mean_distance(positions[each.sid], each)
            for each in _labelled(structures, positions, "sid", "pos_relaxed")
        ]
    )
    return IS2RSScores(
        structures=len(distances),
        average_dwt_percent=100 * float((distances[:, None] < DISTANCES).mean()),
        dwt_percent={float(each): 100 * float((distances < each).mean()) for each in thresholds},
        mean_distance_A=float(distances.mean()),
    )


def mean_distance(positions: np.ndarray, structure: Structure) -> float:
    """Mean distance, Angstrom, of the free atoms in ``positions`` (N, 3) from ``pos_relaxed``.

    Raises:
        DensError: another number of atoms, or no free one.
    """
    if len(positions) != len(structure.pos_relaxed):
        raise DensError(
            f"{structure.sid} has {len(structure.pos_relaxed)} atoms, but its relaxed positions "
            f"are of {len(positions)} atoms"
        )
    _check_free(structure)
    off = min_diff(
        positions[structure.free].astype(np.float64),
        structure.pos_relaxed[structure.free].astype(np.float64),
        structure.cell.astype(np.float64),
        [True, True, True],
    )
    return float(np.linalg.norm(off, axis=1).mean())


def _index(ids: list[str]) -> dict[str, int]:
    index = {name: place for place, name in enumerate(ids)}
    if len(index) < len(ids):
        twice = next(name for place, name in enumerate(ids) if index[name] != place)
        raise DensError(f"{twice} is predicted more than once; ids must be unique")
    return index


def _labelled(
    structures: Iterable[Structure], predicted: Mapping, name: str, *labels: str
) -> Iterator[Structure]:
    """The structures, if each is predicted once and labelled, and no prediction is left over.

    Args:
        name: attribute of a structure that is its key in ``predicted``: ``id`` or ``sid``.
    """
    seen: set[str] = set()
    missing: list[str] = []
    for each in structures:
        key = getattr(each, name)
        if key in seen:
            raise DensError(f"{key} is in the data set more than once; ids must be unique")
        seen.add(key)
        if key not in predicted:
            missing.append(key)
            continue
        for label in labels:
            if getattr(each, label) is None:
                raise DensError(
                    f"{key} has no {label} label; scores need a labelled data set (test sets "
                    "have no labels: submit their predictions to the leaderboard)"
                )
        yield each
    foreign = [key for key in predicted if key not in seen]
    if missing or foreign:
        parts = [
            f"{len(ids)} {what} ({', '.join(ids[:3])}{', ...' if len(ids) > 3 else ''})"
            for ids, what in ((missing, "are not predicted"), (foreign, "are not in the data set"))
            if ids
        ]
        raise DensError(
            f"predictions and labels do not match: of {len(seen)} structures and "
            f"{len(predicted)} predictions, {' and '.join(parts)}; are they of the same split?"
        )
    if not seen:
        raise DensError("there is no structure to score")


def _chunks(structures: Iterator[Structure]) -> Iterator[list[Structure]]:
    return iter(lambda: list(islice(structures, CHUNK)), [])


def _check_free(structure: Structure) -> None:
    if structure.fixed.all():
        raise DensError(f"{structure.id} has no free atom, so it has no score; leave it out")


def _tensor(values: np.ndarray | list) -> torch.Tensor:
    """float64, of numbers or of arrays that are joined."""
    if isinstance(values, list) and isinstance(values[0], np.ndarray):
        values = np.concatenate(values)
    return torch.as_tensor(np.asarray(values, np.float64))
