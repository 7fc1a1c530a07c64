"""Which files hold the results of each split: named by options, or in an evaluation folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from dens_ocp.errors import DensError, nearest
from dens_ocp.results.leaderboard.boards import BOARDS, OC20, Board, board
from dens_ocp.results.pipeline.folder import EvaluationFolder

TASKS = ("s2ef", "is2re", "is2rs")

SPLITS = tuple(dict.fromkeys(split for board in BOARDS.values() for split in board.splits))
"""Splits of all boards."""

lmdb_option = click.option(
    "--lmdb",
    multiple=True,
    metavar="SPLIT=PATH",
    help="data set of the split, a folder of LMDBs or one file. Give the option once for each "
    "split: --lmdb id=data/s2ef/test_id --lmdb ood_ads=data/s2ef/test_ood_ads (default: the data "
    "sets that an evaluation folder names, else none)",
)


def board_option(default: str) -> Callable[[Any], Any]:
    """``--board``; ``default`` is what help says about it."""
    text = f"{' or '.join(BOARDS)} (default: {default})"
    return click.option("--board", "board_name", metavar="BOARD", help=text)


def result_options(function: Any) -> Any:
    """The argument ``EVALUATION``, and beside it fairchem's options ``--id PATH --ood-ads PATH
    ...``, which the command gets by the names of the splits, ``--lmdb`` and ``--board``."""
    function = lmdb_option(function)
    for split in reversed(SPLITS):
        boards = " and ".join(name for name, each in BOARDS.items() if split in each.splits)
        function = click.option(
            "--" + split.replace("_", "-"),
            split,
            type=click.Path(path_type=Path),
            help=f"results of the split {split} ({boards}): an npz file, or for is2re and is2rs a "
            "folder of trajectories",
        )(function)
    function = board_option("that of the evaluation folder, else OC20")(function)
    function = click.option(
        "--task", required=True, type=click.Choice(TASKS), help="task that the results are for"
    )(function)
    path = click.Path(path_type=Path)
    return click.argument("evaluation", required=False, type=path)(function)


def chosen_board(name: str | None, folder: EvaluationFolder | None) -> Board:
    """The board that is asked for, else that of the evaluation folder, else OC20.

    Raises:
        DensError: there is no such board; an evaluation.json that cannot be read.
    """
    if name:
        return board(name)
    return (None if folder is None else folder.board) or OC20


def lmdb_paths(options: Sequence[str], board: Board) -> dict[str, Path]:
    """Path by split of the values of ``--lmdb``.

    Raises:
        DensError: an option that is not SPLIT=PATH, a split that the board does not have, or one
            given twice.
    """
    paths: dict[str, Path] = {}
    for option in options:
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
    options: Sequence[str], task: str, board: Board, folder: EvaluationFolder | None
) -> dict[str, dict[str, Any]]:
    """Section of the data set of each split: of ``--lmdb``, else of the evaluation folder.

    Raises:
        DensError: as :func:`lmdb_paths`; an evaluation.json that cannot be read.
    """
    sections = {} if folder is None else folder.sections(task)
    sections |= {split: {"src": str(path)} for split, path in lmdb_paths(options, board).items()}
    return {split: sections[split] for split in board.splits if split in sections}


def result_paths(
    options: Mapping[str, Path | None], task: str, board: Board, folder: EvaluationFolder | None
) -> dict[str, Path]:
    """Path of the results by split, from the options or from an evaluation folder.

    Raises:
        DensError: neither or both are given; a folder without results of the task.
    """
    named = {split: path for split, path in options.items() if path is not None}
    if named and folder is not None:
        raise DensError(f"give either the folder {folder.path} or the paths of the splits")
    if folder is None:
        if not named:
            words = " ".join(f"--{split.replace('_', '-')} PATH" for split in board.splits)
            raise DensError(f"no results are given; give an evaluation folder, or {words}")
        return named
    if not folder.path.is_dir():
        raise DensError(f"{folder.path} is not a folder")
    found = {}
    for split in board.splits:
        # relaxed positions are in trajectories too
        also = [folder.trajectories(split)] if task == "is2rs" else []
        there = [path for path in (folder.results(task, split), *also) if path.exists()]
        if there:
            found[split] = there[0]
    if not found:
        name = folder.results(task, "<split>").relative_to(folder.path)
        raise DensError(f"{folder.path} has no results of {task}: no {name} of {board.name}")
    return found
