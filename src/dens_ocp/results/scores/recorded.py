"""What ``evaluation.json`` in an evaluation folder says: the board, and the data of each split."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import Board, board
from dens_ocp.results.scores.places import EvaluationPlaces


def recorded_board(folder: Path | None) -> Board | None:
    """The board that the evaluation was for; None without evaluation.json or without a board.

    Raises:
        DensError: evaluation.json cannot be read, or names no board that there is.
    """
    name = _read(folder).get("board")
    return None if name is None else board(str(name))


def recorded_sections(folder: Path | None, task: str) -> dict[str, dict[str, Any]]:
    """The section of the data set (``src``, ``format``, ...) of each split; empty without
    evaluation.json.

    Args:
        task: ``s2ef``; or ``is2re`` or ``is2rs``, which have the same data sets.

    Raises:
        DensError: evaluation.json cannot be read.
    """
    splits = _read(folder).get("splits") or {}
    name = "s2ef" if task == "s2ef" else "is2re"
    return {split: sections[name] for split, sections in splits.items() if sections.get(name)}


def _read(folder: Path | None) -> dict[str, Any]:
    if folder is None:
        return {}
    path = EvaluationPlaces(folder).description_file
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DensError(f"{path} cannot be read: {error}; run `dens-ocp evaluate` again") from None
