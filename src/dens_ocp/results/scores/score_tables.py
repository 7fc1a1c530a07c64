"""Scores of all splits: as text, JSON, and in the layout of the DeNS paper's tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import pandas as pd
from tabulate import tabulate

from dens_ocp.results.leaderboard.boards import Board
from dens_ocp.results.scores.scores import Score

Scores = Mapping[str, Mapping[str, Score]]
"""By task (``s2ef``, ``is2re``, ``is2rs``, ``relax_cell``) and split."""

AVERAGE = "average"
"""In place of a split's name: the mean over the splits, each of the same weight, as the boards and
the paper (Table 1: "averaged over the four validation sub-splits") take it."""

_COLUMNS = {
    "structures": ("structures", "", 0),
    "atoms": ("free atoms", "", 0),
    "energy_mae_meV": ("energy MAE", "meV", 1),
    "energy_per_atom_mae_meV": ("energy MAE per atom", "meV", 2),
    "stress_mae_meV_per_A3": ("stress MAE", "meV/A^3", 3),
    "failed": ("failed", "", 0),
    "converged_percent": ("converged", "%", 2),
    "mean_steps": ("mean steps", "", 1),
    "mean_volume_change_percent": ("mean volume change", "%", 2),
    "force_mae_meV_per_A": ("force MAE", "meV/A", 2),
    "force_cosine": ("force cos", "", 3),
    "efwt_percent": ("EFwT", "%", 2),
    "ewt_percent": ("EwT", "%", 2),
    "average_dwt_percent": ("average DwT", "%", 2),
    "mean_distance_A": ("mean distance", "A", 3),
}
"""Heading, unit and decimals by the name of the score."""


_COUNTS = ("structures", "atoms", "failed")
"""Of all splits their sum is told, of other numbers the mean."""


def score_numbers(scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """Unrounded numbers by task, split and name; units are in the names; :data:`AVERAGE` is a split
    too, in which numbers of structures and atoms are sums.

    DwT at a threshold is named by it: ``dwt_0.1A_percent``.
    """
    return {
        task: {
            **{split: _numbers(score) for split, score in by_split.items()},
            AVERAGE: _average([_numbers(score) for score in by_split.values()]),
        }
        for task, by_split in scores.items()
        if by_split
    }


def _numbers(score: Score) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for name, value in asdict(score).items():
        if isinstance(value, dict):
            numbers |= {f"dwt_{each:g}A_percent": percent for each, percent in value.items()}
        elif value is not None:
            numbers[name] = value
    return numbers


def _average(splits: list[dict[str, float]]) -> dict[str, float]:
    """Of the scores that every split has."""
    frame = pd.DataFrame(splits)
    return {
        name: column.sum().item() if name in _COUNTS else column.mean(skipna=False).item()
        for name, column in frame.items()
        if all(name in split for split in splits)
    }


def score_json(scores: Scores, board: Board) -> str:
    """:func:`score_numbers` and the board's name, as JSON."""
    return json.dumps({"board": board.name, "scores": score_numbers(scores)}, indent=2) + "\n"


def column(name: str) -> tuple[str, str, int]:
    """Heading, unit and decimals of a score."""
    if name in _COLUMNS:
        return _COLUMNS[name]
    return f"DwT {name.removeprefix('dwt_').removesuffix('A_percent')} A", "%", 2


def _title(split: str, board: Board) -> str:
    titles = dict(zip(board.splits, board.titles, strict=True))
    return "Average" if split == AVERAGE else titles.get(split, split)


def _cells(numbers: Mapping[str, float], names: Iterable[str]) -> list[str]:
    return [f"{numbers[name]:.{column(name)[2]}f}" if name in numbers else "-" for name in names]


def _names(by_split: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The scores of all splits; one may have some that another lacks."""
    return list(dict.fromkeys(name for numbers in by_split.values() for name in numbers))


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Plain text: the first ``left`` columns to the left, the others to the right."""
    aligned = ["left"] * left + ["right"] * (len(header) - left)
    return tabulate(rows, header, tablefmt="simple", disable_numparse=True, colalign=aligned)


def latex_table(header: Sequence[tuple[str, ...]], rows: Sequence[Sequence[str]]) -> str:
    """A ``tabular`` with booktabs rules: the first column to the left, the others to the right.

    Args:
        header: of each column, from its top to its bottom, already LaTeX; the same cells beside
            each other become one.
        rows: lines of cells, plain text.
    """
    deep = len(header[0]) > 1
    columns = pd.MultiIndex.from_tuples(header) if deep else [text for (text,) in header]
    frame = pd.DataFrame([list(row) for row in rows], columns=columns)
    return (
        frame.style.format(escape="latex")
        .hide(axis="index")
        .to_latex(hrules=True, multicol_align="c", column_format="l" + "r" * (len(header) - 1))
        .rstrip()
    )


def score_table(scores: Scores, board: Board) -> str:
    """Plain text: a table for each task, a row for each split and their average."""
    parts = []
    for task, by_split in score_numbers(scores).items():
        names = _names(by_split)
        columns = map(column, names)
        header = [f"{heading} ({unit})" if unit else heading for heading, unit, _ in columns]
        rows = [[_title(split, board), *_cells(each, names)] for split, each in by_split.items()]
        parts.append(f"{board.name} {task.upper()}\n{text_table(['split', *header], rows)}")
    return "\n\n".join(parts) + "\n"


LATEX_UNITS = {
    "meV/A": r"meV/\AA", "A": r"\AA", "%": r"\%", "meV/A^3": r"meV/\AA$^3$",
}  # fmt: skip

_PAPER = (
    ("s2ef", "energy_mae_meV", r"Energy MAE (meV) $\downarrow$", {"OC20": 0, "OC22": 1}),
    ("s2ef", "force_mae_meV_per_A", r"Force MAE (meV/\AA) $\downarrow$", {"OC20": 1, "OC22": 2}),
    ("is2re", "energy_mae_meV", r"Energy MAE (meV) $\downarrow$", {"OC20": 0, "OC22": 0}),
)
"""The scores in Tables 2 and 3: task, name, heading, decimals."""


def score_latex(scores: Scores, board: Board, model: str = "this model") -> str:
    """LaTeX (booktabs): the model's row in the layout of the paper's table, then every score.

    OC20 and other splits, as Table 2: energy and force MAE averaged over the splits. OC22, as Table
    3: in distribution and out of it, each.

    Args:
        model: name in the first column.
    """
    numbers = score_numbers(scores)
    total = board.name == "OC22"
    layout = dict(zip(board.splits, board.titles, strict=True)) if total else {AVERAGE: ""}
    header: list[tuple[str, ...]] = [("", "", "Model") if total else ("", "Model")]
    row = [model]
    for task, name, heading, decimals in _PAPER:
        for split, title in layout.items():
            found = numbers.get(task, {}).get(split)
            top = f"{task.upper()}-Total" if total else task.upper()
            header.append((top, heading, title) if total else (top, heading))
            digits = decimals.get(board.name, 1)
            row.append("-" if found is None else f"{found[name]:.{digits}f}")
    lines = [
        f"% {board.name}, layout of Table {3 if total else 2} of the DeNS paper",
        latex_table(header, [row]),
    ]
    for task, by_split in numbers.items():
        header = [("Split",)]
        names = _names(by_split)
        for heading, unit, _ in map(column, names):
            unit = LATEX_UNITS.get(unit, unit)
            heading = heading.removesuffix(" A") + (r" \AA" if heading.endswith(" A") else "")
            header.append((f"{heading} ({unit})" if unit else heading,))
        rows = [[_title(split, board), *_cells(each, names)] for split, each in by_split.items()]
        lines += ["", f"% {board.name} {task.upper()}", latex_table(header, rows)]
    return "\n".join(lines) + "\n"
