"""``dens-ocp submission``: makes leaderboard files, and checks any."""

from __future__ import annotations

from pathlib import Path

import click

from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import board
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.scores.result_paths import (
    TASKS,
    board_option,
    chosen_board,
    data_sections,
    lmdb_option,
    lmdb_paths,
    result_options,
    result_paths,
)

_FILE = click.Path(path_type=Path)
_atoms_option = click.option(
    "--atoms",
    type=click.Choice(["free", "all"]),
    default="free",
    show_default=True,
    help="s2ef: forces of free atoms, as predict writes them and EvalAI takes them, or of all "
    "atoms (`make` then needs --lmdb)",
)


@click.group()
def command() -> None:
    """Make and check leaderboard files."""


@command.command(short_help="make a leaderboard file")
@result_options
@click.option(
    "--out",
    type=_FILE,
    metavar="FILE",
    help="npz file to write (default: submission/<task>.npz in the evaluation folder)",
)
@_atoms_option
@click.option(
    "--fill-fixed",
    is_flag=True,
    help="with --atoms all and predictions of free atoms only: give fixed atoms zero forces, as "
    "ASE does for constrained atoms",
)
@click.option(
    "--hybrid",
    is_flag=True,
    help="is2re: the npz files are predictions of an S2EF model on relaxed structures; ids "
    "sid_fid are shortened to sid",
)
@click.option(
    "--unfinished",
    type=click.Choice(["refuse", "last-frame"]),
    default="refuse",
    show_default=True,
    help="what to do with relaxations that did not finish (an unfinished trajectory only; an "
    "empty or damaged .traj; with --lmdb also no trajectory): list and refuse them, or take the "
    "last frame that can be read",
)
@click.option(
    "--fmax",
    type=float,
    metavar="FORCE",
    help="list relaxations with a larger force on a free atom in the last frame, eV/A, for "
    "example 0.02. They are not refused, because they may have used all their steps",
)
@click.option("--force", is_flag=True, help="replace an existing file")
def make(
    evaluation: Path | None,
    task: str,
    board_name: str | None,
    lmdb: tuple[str, ...],
    out: Path | None,
    atoms: str,
    fill_fixed: bool,
    hybrid: bool,
    unfinished: str,
    fmax: float | None,
    force: bool,
    **splits: Path | None,
) -> None:
    """Join the results of all splits in one leaderboard file (EvalAI, Hugging Face).

    The results of a split are, by task:

    \b
      s2ef   the npz that fairchem's predict wrote
      is2re  a folder of trajectories (energy of the last frame), or the npz of
             an IS2RE model, or with --hybrid the npz of an S2EF model on
             relaxed structures
      is2rs  relaxed_positions.npz of run-relaxations, or a folder of trajectories

    Give either EVALUATION, a folder that `dens-ocp evaluate` wrote, or the paths of the splits.
    If anything is wrong, no file is written. With --lmdb, ids and numbers of atoms are checked too.

    \b
      dens-ocp submission make EVALUATION --task s2ef
      dens-ocp submission make --task is2re --out is2re.npz --id relax/id \\
          --ood-ads relax/ood_ads --ood-cat relax/ood_cat --ood-both relax/ood_both \\
          --lmdb id=data/is2re/test_id
    """
    from dens_ocp.results.leaderboard.reference import read_references
    from dens_ocp.results.leaderboard.submission_report import format_report
    from dens_ocp.results.leaderboard.submission_sources import Choices
    from dens_ocp.results.leaderboard.submission_writer import make_submission

    folder = None if evaluation is None else EvaluationFolder(evaluation)
    target = chosen_board(board_name, folder)
    if out is None and folder is None:
        raise DensError("--out is missing; give the npz file to write")
    sections = data_sections(lmdb, task, target, folder)
    report = make_submission(
        out or folder.submission(task),
        task,
        target,
        result_paths(splits, task, target, folder),
        read_references({split: Path(each["src"]) for split, each in sections.items()}),
        Choices(atoms, fill_fixed, hybrid, unfinished, fmax),
        force,
    )
    print(format_report(report))


@command.command(short_help="verify a leaderboard file")
@click.argument("file", type=_FILE)
@click.option(
    "--task", type=click.Choice(TASKS), help="task of the file (default: found from its arrays)"
)
@board_option("found from the splits in the file")
@lmdb_option
@_atoms_option
def check(
    file: Path, task: str | None, board_name: str | None, lmdb: tuple[str, ...], atoms: str
) -> int:
    """Verify a leaderboard FILE, an npz made with any program. Prints what each split holds, then
    "ok", or all problems (exit code 2).

    \b
      dens-ocp submission check s2ef.npz
      dens-ocp submission check s2ef.npz --lmdb id=data/s2ef/test_id --lmdb ood_ads=...
    """
    from dens_ocp.results.leaderboard.reference import read_references
    from dens_ocp.results.leaderboard.submission_checker import board_of, check_submission
    from dens_ocp.results.leaderboard.submission_report import format_report

    target = board(board_name) if board_name else board_of(file)
    references = read_references(lmdb_paths(lmdb, target))
    report = check_submission(file, task, target, references, atoms)
    print(format_report(report))
    return 0 if report.ok else 2
