"""Reads the folder that ``dens-ocp evaluate`` makes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.report.breakdown import Breakdown
from dens_ocp.results.scores.places import EvaluationPlaces
from dens_ocp.results.scores.prediction_files import read_predictions

_UNLABELLED = 1000  # so many structures without labels make a test set


@dataclass(frozen=True)
class Evaluation(EvaluationPlaces):
    """An evaluation.

    Attributes:
        path: of the folder.
        description: ``evaluation.json``: ``board``, ``checkpoint``, ``versions``, and in
            ``splits`` by name the sections of data sets ``s2ef`` and ``is2re`` (or null).
    """

    description: dict[str, Any]

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """Sections of data sets by split."""
        return self.description.get("splits") or {}

    @property
    def checkpoint(self) -> Path | None:
        """The evaluated checkpoint, or None where it is not said or not there any more."""
        told = self.description.get("checkpoint")
        if not told:
            return None
        path = Path(told)
        path = path if path.is_absolute() else self.path / path
        return path if path.is_file() else None


def is_evaluation(path: Path) -> bool:
    """Whether an ``evaluation.json`` lies there."""
    return EvaluationPlaces(Path(path)).description_file.is_file()


def read_evaluation(path: Path) -> Evaluation:
    """Read ``evaluation.json``.

    Raises:
        DensError: it is missing, or not valid.
    """
    file = EvaluationPlaces(Path(path)).description_file
    if not file.is_file():
        raise DensError(f"--evaluation: {path} holds no evaluation.json; name an evaluation folder")
    try:
        description = json.loads(file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DensError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(description, dict):
        raise DensError(f"{file} is not a description of an evaluation: it is no object")
    return Evaluation(Path(path).resolve(), description)


@dataclass(frozen=True)
class ScoredSplit:
    """Errors of a split.

    Attributes:
        breakdown: the numbers.
        missing: structures with labels for which there is no prediction.
        unlabelled: structures without labels.
        unknown: predictions for structures that are not in the data set.
    """

    breakdown: Breakdown
    missing: int
    unlabelled: int
    unknown: int


def score_split(folder: Evaluation, split: str) -> ScoredSplit | str:
    """Compare predictions and labels of a split, structure by structure.

    Returns:
        The errors; or why there are none, for the reader of the report.

    Raises:
        DensError: files that are there, but damaged or of different data.
    """
    section = folder.splits[split].get("s2ef")
    if not section:
        return "its evaluation.json names no S2EF data set with labels"
    if not folder.predictions(split).is_file():
        return f"predictions/{split}.npz is missing; it comes from dens-ocp evaluate"
    try:
        structures = open_structures(section, f"splits.{split}.s2ef")
    except DensError as error:
        return f"the data set cannot be read here ({error})"
    predictions = read_predictions(folder.predictions(split))
    row_of = {name: row for row, name in enumerate(predictions.ids)}
    breakdown, missing, unlabelled, found = Breakdown(), 0, 0, 0
    for true in tqdm(structures, desc=f"errors of {split}", unit="structures", leave=False):
        row = row_of.get(true.id)
        if row is None:
            missing += 1
            continue
        found += 1
        if true.energy is None and true.forces is None:
            unlabelled += 1
            if unlabelled >= _UNLABELLED and not breakdown.structures:
                break
            continue
        forces = None if predictions.forces is None else predictions.forces[row]
        breakdown.add(true, float(predictions.energy[row]), forces)
    if not breakdown.structures and not breakdown.not_finite:
        if found == 0:
            raise DensError(
                f"{folder.predictions(split)}: none of its {len(row_of)} ids is in "
                f"{section.get('src')}; are these predictions of another split?"
            )
        return "its structures have no labels (a test set)"
    return ScoredSplit(breakdown, missing, unlabelled, len(row_of) - found)


def labelled_structures(section: dict[str, Any], count: int) -> list[Structure]:
    """Up to ``count`` structures with forces, spread over a data set; empty where it cannot be
    read here."""
    try:
        structures = open_structures(section)
    except DensError:
        return []
    step = max(1, len(structures) // count)
    picked = (structures[index] for index in range(0, len(structures), step))
    return [each for each in picked if each.forces is not None][:count]
