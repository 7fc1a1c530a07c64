"""Scores of several evaluations beside each other: with and without DeNS for example."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.scores.score_tables import AVERAGE, column, latex_table, text_table


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation folder says.

    Attributes:
        name: of the folder. dens: whether the model was trained with DeNS, or None.
        measured: what decides about each score: data sets by split, how cells were relaxed.
        scores: unrounded, by task, split and name.
    """

    name: str
    dens: bool | None
    measured: dict[str, Any]
    scores: dict[str, dict[str, dict[str, float]]]

    @property
    def title(self) -> str:
        known = {True: " (with DeNS)", False: " (without DeNS)", None: ""}
        return self.name + known[self.dens]


@dataclass(frozen=True)
class Row:
    """A score of a split: its task, split and name, and its values, None where it is missing."""

    task: str
    split: str
    score: str
    values: tuple[float | None, ...]

    @property
    def changes(self) -> tuple[float | None, ...]:
        """Of each value after the first, in percent of the first; None for numbers of structures
        and atoms, which are no measure of a model."""
        first, *others = self.values
        if self.score in ("structures", "atoms"):
            return tuple(None for _ in others)
        return tuple(
            100 * (value / first - 1) if value is not None and first else None for value in others
        )


def read(folder: EvaluationFolder) -> Evaluated:
    """Read ``evaluation.json`` and ``scores.json``.

    Raises:
        DensError: no folder of ``dens-ocp evaluate``, or one without scores.
    """
    path = folder.scores("json")
    try:
        scores = json.loads(path.read_text())["scores"]
    except FileNotFoundError:
        raise DensError(
            f"{folder.path} has no scores.json; either it is not a folder of dens-ocp evaluate, "
            "or its runs are not done, or its data sets have no labels"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise DensError(f"{path} cannot be read ({error}); run dens-ocp evaluate again") from None
    described = folder.description
    relaxations = [job["relaxation"] for job in described.get("jobs", {}).values()
                   if "relaxation" in job]  # fmt: skip
    measured = {
        f"data of {split}, {task}": section["src"]
        for split, sections in folder.splits.items()
        for task, section in sections.items()
        if section
    }
    if relaxations:
        ignored = ("shards", "batch_size", "save_full_traj")
        measured |= {
            f"evaluation.relaxation.{name}": value
            for name, value in relaxations[0].items()
            if name not in ignored
        }
    return Evaluated(folder.path.resolve().name, described.get("dens"), measured, scores)


def compared(evaluations: Sequence[Evaluated]) -> list[Row]:
    """The scores that two of the evaluations have, or more.

    Raises:
        DensError: a split has other data in one than in another, or cells were relaxed otherwise;
            no score is in two of them.
    """
    first = evaluations[0]
    for other in evaluations[1:]:
        for key, value in first.measured.items():
            if other.measured.get(key, value) != value:
                raise DensError(
                    f"{first.name} and {other.name} cannot be compared: {key} is {value} in one "
                    f"and {other.measured[key]} in the other; evaluate both in the same way"
                )
    rows: dict[tuple[str, str, str], None] = {}
    for each in evaluations:
        for task, by_split in each.scores.items():
            for split, numbers in by_split.items():
                rows |= dict.fromkeys((task, split, name) for name in numbers)
    found = []
    for task, split, name in rows:
        values = tuple(each.scores.get(task, {}).get(split, {}).get(name) for each in evaluations)
        if sum(value is not None for value in values) > 1:
            found.append(Row(task, split, name, values))
    if all(row.split == AVERAGE for row in found):
        raise DensError(
            "the evaluations have no split in common: "
            + "; ".join(f"{each.name} has {_splits_of(each)}" for each in evaluations)
            + "; evaluate both with the same config"
        )
    # with a single split its average says the same again
    of_task = {task: {row.split for row in found if row.task == task} for task, _, _ in rows}
    return [row for row in found if row.split != AVERAGE or len(of_task[row.task]) > 2]


def _splits_of(evaluated: Evaluated) -> str:
    splits = [
        f"{split} ({task})"
        for task, by_split in evaluated.scores.items()
        for split in by_split
        if split != AVERAGE
    ]
    return ", ".join(splits) or "none"


def table(evaluations: Sequence[Evaluated], rows: Sequence[Row]) -> str:
    """Plain text: a row for each score, a column for each evaluation and for what changes."""
    header = ["task", "split", "score", *_headings(evaluations)]
    cells = [[row.task, row.split, _heading(row), *_values(row)] for row in rows]
    return text_table(header, cells, left=3) + "\n"


def latex(evaluations: Sequence[Evaluated], rows: Sequence[Row]) -> str:
    """The same as a ``tabular`` with booktabs rules."""
    header = [("",), *((_escaped(each),) for each in _headings(evaluations))]
    cells = [[f"{row.task} {row.split} {_heading(row)}", *_values(row)] for row in rows]
    return latex_table(header, cells) + "\n"


def as_json(evaluations: Sequence[Evaluated], rows: Sequence[Row]) -> str:
    """Unrounded numbers; units are in the names of scores."""
    entries = [
        {
            "task": row.task, "split": row.split, "score": row.score,
            "values": list(row.values), "changes_percent": list(row.changes),
        }
        for row in rows
    ]  # fmt: skip
    named = [{"name": each.name, "dens": each.dens} for each in evaluations]
    return json.dumps({"evaluations": named, "scores": entries}, indent=2) + "\n"


def _headings(evaluations: Sequence[Evaluated]) -> list[str]:
    first, *others = [each.title for each in evaluations]
    changes = ["change (%)"] if len(others) == 1 else [f"change {each} (%)" for each in others]
    return [first, *others, *changes]


def _heading(row: Row) -> str:
    heading, unit, _ = column(row.score)
    return f"{heading} ({unit})" if unit else heading


def _values(row: Row) -> list[str]:
    decimals = column(row.score)[2]
    values = ["-" if each is None else f"{each:.{decimals}f}" for each in row.values]
    return values + ["-" if each is None else f"{each:+.1f}" for each in row.changes]


def _escaped(text: str) -> str:
    return text.replace("_", r"\_").replace("%", r"\%")


def named(paths: Sequence[Path]) -> list[Evaluated]:
    """:func:`read` of several folders, whose names differ.

    Raises:
        DensError: as :func:`read`; fewer than two; one twice.
    """
    if len(paths) < 2:
        raise DensError("give two evaluation folders or more")
    found = [read(EvaluationFolder(path)) for path in paths]
    names = [each.name for each in found]
    if len({path.resolve() for path in paths}) < len(paths):
        raise DensError(f"one evaluation folder is given twice: {', '.join(names)}")
    if len(set(names)) < len(names):
        found = [
            Evaluated(str(path), each.dens, each.measured, each.scores)
            for path, each in zip(paths, found, strict=True)
        ]
    return found
