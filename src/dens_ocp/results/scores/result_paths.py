"""Which files hold the results of each split: named by options, or in an evaluation folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError, nearest
from dens_ocp.results.leaderboard.boards import BOARDS, Board
from dens_ocp.results.scores.places import EvaluationPlaces
from dens_ocp.results.scores.recorded import recorded_sections

TASKS = ("s2ef", "is2re", "is2rs")

SPLITS = tuple(dict.fromkeys(split for board in BOARDS.values() for split in board.splits))
"""Splits of all boards."""


def add_result_arguments(parser: argparse.ArgumentParser) -> None:
    """``--id PATH --ood-ads PATH ...``, fairchem's options, and ``--lmdb SPLIT=PATH``."""
    for split in SPLITS:
        boards = " and ".join(name for name, each in BOARDS.items() if split in each.splits)
        parser.add_argument(
            "--" + split.replace("_", "-"),
            dest=f"split_{split}",
            type=Path,
            metavar="PATH",
            default=argparse.SUPPRESS,
            help=f"results of the split {split} ({boards}): an npz file, or for is2re and is2rs a "
            "folder of trajectories",
        )
    add_lmdb_argument(parser)


def add_lmdb_argument(parser: argparse.ArgumentParser) -> None:
    """``--lmdb SPLIT=PATH``, once for each split."""
    parser.add_argument(
        "--lmdb",
        action="append",
        default=argparse.SUPPRESS,
        metavar="SPLIT=PATH",
        help="the split's data set, a folder of LMDBs or one file; once for each split: "
        "--lmdb id=data/s2ef/test_id --lmdb ood_ads=data/s2ef/test_ood_ads (default: those that an "
        "evaluation folder names, else none)",
    )


def lmdb_paths(args: argparse.Namespace, board: Board) -> dict[str, Path]:
    """Path by split of ``--lmdb``.

    Raises:
        DensError: an option that is not SPLIT=PATH, a split that the board does not have, or one
            given twice.
    """
    paths: dict[str, Path] = {}
    for option in getattr(args, "lmdb", []):
        split, equals, path = option.partition("=")
        split = split.replace("-", "_")
        if not equals or not path:
            raise DensError(f"--lmdb {option}: write SPLIT=PATH, for example id=data/test_id")
        if split not in board.splits:
            raise DensError(
                f"--lmdb {option}: {board.name} has no split {split!r}"
                f"{nearest(split, board.splits)}; splits: {', '.join(board.splits)}"
            )
        if split in paths:
            raise DensError(f"--lmdb: the split {split} is given twice")
        paths[split] = Path(path)
    return paths


def data_sections(
    args: argparse.Namespace, task: str, board: Board, folder: Path | None
) -> dict[str, dict[str, Any]]:
    """Section of the data set of each split: of ``--lmdb``, else of the evaluation folder.

    Raises:
        DensError: as :func:`lmdb_paths`; an evaluation.json that cannot be read.
    """
    sections = recorded_sections(folder, task)
    sections |= {split: {"src": str(path)} for split, path in lmdb_paths(args, board).items()}
    return {split: sections[split] for split in board.splits if split in sections}


def result_paths(
    args: argparse.Namespace, task: str, board: Board, folder: Path | None
) -> dict[str, Path]:
    """Path of the results by split, from the options or from an evaluation folder.

    Raises:
        DensError: neither or both are given; a folder without results of the task.
    """
    named = {
        split: getattr(args, f"split_{split}")
        for split in SPLITS
        if hasattr(args, f"split_{split}")
    }
    if named and folder is not None:
        raise DensError(f"give either the folder {folder} or the paths of the splits, not both")
    if folder is None:
        if not named:
            options = " ".join(f"--{split.replace('_', '-')} PATH" for split in board.splits)
            raise DensError(f"no results given: name an evaluation folder, or {options}")
        return named
    if not folder.is_dir():
        raise DensError(f"{folder} is not a folder")
    places = EvaluationPlaces(folder)
    found = {}
    for split in board.splits:
        for path in _may_be(places, task, split):
            if path.exists():
                found[split] = path
                break
    if not found:
        (name, *_) = _may_be(places, task, "<split>")
        raise DensError(
            f"{folder} has no results of {task}: no {name.relative_to(folder)} of {board.name}"
        )
    return found


def _may_be(places: EvaluationPlaces, task: str, split: str) -> list[Path]:
    """Where results may lie, the best first: relaxed positions are in trajectories too."""
    paths = [places.results(task, split)]
    return [*paths, places.trajectories(split)] if task == "is2rs" else paths
