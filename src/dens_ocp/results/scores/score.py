"""Scores of predictions or relaxations of a split on labelled data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dens_ocp.data.checks import check_lmdb_source
from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.relaxation.trajectories import (
    energies_of_trajectories,
    positions_of_trajectories,
)
from dens_ocp.results.scores.prediction_files import (
    energies_of_npz,
    positions_of_npz,
    read_predictions,
)
from dens_ocp.results.scores.score_tables import Score
from dens_ocp.results.scores.scores import is2re_scores, is2rs_scores, s2ef_scores


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
            return is2re_scores(energies_of_trajectories(results), structures)
        return is2re_scores(energies_of_npz(results, hybrid), structures)
    read = positions_of_trajectories if results.is_dir() else positions_of_npz
    return is2rs_scores(read(results), structures)
