"""``dens-ocp submission``: makes leaderboard files, and checks any."""

from __future__ import annotations

import argparse
from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import BOARDS, OC20, board
from dens_ocp.results.leaderboard.reference import read_references
from dens_ocp.results.leaderboard.submission_checker import board_of, check_submission
from dens_ocp.results.leaderboard.submission_report import format_report
from dens_ocp.results.leaderboard.submission_sources import Choices
from dens_ocp.results.leaderboard.submission_writer import make_submission
from dens_ocp.results.scores.recorded import recorded_board
from dens_ocp.results.scores.result_paths import (
    TASKS,
    add_lmdb_argument,
    add_result_arguments,
    data_sections,
    lmdb_paths,
    result_paths,
)

_MAKE = """Join the results of all splits in one leaderboard file (EvalAI, Hugging Face).

  s2ef   the npz that fairchem's predict wrote
  is2re  a folder of trajectories (energy of the last frame), or the npz of an IS2RE model, or with
         --hybrid the npz of an S2EF model on relaxed structures
  is2rs  relaxed_positions.npz of run-relaxations, or a folder of trajectories

Nothing is written if anything is wrong; with --lmdb, ids and numbers of atoms are compared too.

  dens-ocp submission make EVALUATION --task s2ef
  dens-ocp submission make --task is2re --out is2re.npz --id relax/id --ood-ads relax/ood_ads \\
      --ood-cat relax/ood_cat --ood-both relax/ood_both --lmdb id=data/is2re/test_id
"""

_CHECK = """Verify a leaderboard file, whoever made it: prints what each split holds, then "ok", or
every problem (exit code 2).

  dens-ocp submission check s2ef.npz
  dens-ocp submission check s2ef.npz --lmdb id=data/s2ef/test_id --lmdb ood_ads=...
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="make|check")
    raw = argparse.RawDescriptionHelpFormatter
    make = actions.add_parser(
        "make", help="make a leaderboard file", description=_MAKE, formatter_class=raw
    )
    make.add_argument(
        "evaluation",
        nargs="?",
        type=Path,
        help="a folder that `dens-ocp evaluate` made, in place of the paths of the splits",
    )
    make.add_argument("--task", required=True, choices=TASKS)
    _add_board(make, "that of the evaluation folder, else OC20")
    make.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the npz file to write (default: submission/<task>.npz in the evaluation folder)",
    )
    add_result_arguments(make)
    _add_atoms(make)
    make.add_argument(
        "--fill-fixed",
        action="store_true",
        help="with --atoms all, of predictions of free atoms: fixed atoms get zero forces, as ASE "
        "gives them for constrained atoms",
    )
    make.add_argument(
        "--hybrid",
        action="store_true",
        help="is2re: the npz files are predictions of an S2EF model on relaxed structures; their "
        "ids sid_fid become sid",
    )
    make.add_argument(
        "--unfinished",
        choices=("refuse", "last-frame"),
        default="refuse",
        help="relaxations that did not finish (only an unfinished trajectory; an empty or damaged "
        ".traj; with --lmdb, no trajectory): list and refuse them, or take the last frame there is "
        "(default: refuse)",
    )
    make.add_argument(
        "--fmax",
        type=float,
        metavar="FORCE",
        help="eV/A; name relaxations whose last frame has a larger force on a free atom, for "
        "example 0.02. They are not refused: they may have used all their steps",
    )
    make.add_argument("--force", action="store_true", help="replace the file if it exists")

    check = actions.add_parser(
        "check", help="verify a leaderboard file", description=_CHECK, formatter_class=raw
    )
    check.add_argument("file", type=Path, help="the npz file")
    check.add_argument("--task", choices=TASKS, help="default: by the arrays in the file")
    _add_board(check, "by the splits in the file")
    add_lmdb_argument(check)
    _add_atoms(check)


def _add_board(parser: argparse.ArgumentParser, default: str) -> None:
    parser.add_argument(
        "--board", metavar="BOARD", help=f"{' or '.join(BOARDS)} (default: {default})"
    )


def _add_atoms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--atoms",
        choices=("free", "all"),
        default="free",
        help="s2ef: forces of free atoms, as EvalAI's boards take them and predict writes them, or "
        "of all atoms (make: needs --lmdb) (default: free)",
    )


def run(args: argparse.Namespace) -> int:
    """Make or check; 0, or 2 if the file that is checked has problems."""
    return {"make": _make, "check": _check}[args.action](args)


def _make(args: argparse.Namespace) -> int:
    target = board(args.board) if args.board else recorded_board(args.evaluation) or OC20
    if args.out is None and args.evaluation is None:
        raise DensError("--out is missing: the npz file to write")
    out = args.out or args.evaluation / "submission" / f"{args.task}.npz"
    sections = data_sections(args, args.task, target, args.evaluation)
    report = make_submission(
        out,
        args.task,
        target,
        result_paths(args, args.task, target, args.evaluation),
        read_references({split: Path(each["src"]) for split, each in sections.items()}),
        Choices(args.atoms, args.fill_fixed, args.hybrid, args.unfinished, args.fmax),
        args.force,
    )
    print(format_report(report))
    return 0


def _check(args: argparse.Namespace) -> int:
    target = board(args.board) if args.board else board_of(args.file)
    references = read_references(lmdb_paths(args, target))
    report = check_submission(args.file, args.task, target, references, args.atoms)
    print(format_report(report))
    return 0 if report.ok else 2
