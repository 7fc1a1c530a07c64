"""``dens-ocp score``: scores of predictions or relaxations on labelled data."""

from __future__ import annotations

import argparse
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
from dens_ocp.results.leaderboard.boards import BOARDS, OC20, board
from dens_ocp.results.scores.prediction_files import (
    energies_of_npz,
    positions_of_npz,
    read_predictions,
)
from dens_ocp.results.scores.recorded import recorded_board
from dens_ocp.results.scores.result_paths import (
    TASKS,
    add_result_arguments,
    data_sections,
    result_paths,
)
from dens_ocp.results.scores.score_tables import Score, score_json, score_latex, score_table
from dens_ocp.results.scores.scores import is2re_scores, is2rs_scores, s2ef_scores
from dens_ocp.whole_files import write_text

_DESCRIPTION = """Scores as the boards compute them, per split and averaged over the splits.

  s2ef   energy MAE (meV), force MAE (meV/A), force cosine, EFwT; on free atoms
  is2re  energy MAE (meV), EwT
  is2rs  average DwT, DwT, mean distance; on free atoms

Labels are read from the LMDBs: those of validation sets, test sets have none.

  dens-ocp score EVALUATION --task s2ef
  dens-ocp score --task is2re --id relax/id --lmdb id=data/is2re/val_id --latex is2re.tex
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = _DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "evaluation",
        nargs="?",
        type=Path,
        help="a folder that `dens-ocp evaluate` made, in place of the paths of the splits",
    )
    parser.add_argument("--task", required=True, choices=TASKS)
    parser.add_argument(
        "--board",
        metavar="BOARD",
        help=f"{' or '.join(BOARDS)} (default: that of the evaluation folder, else OC20)",
    )
    add_result_arguments(parser)
    parser.add_argument(
        "--hybrid",
        action="store_true",
        help="is2re: the npz files are predictions of an S2EF model on relaxed structures",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write unrounded numbers")
    parser.add_argument(
        "--latex", type=Path, metavar="FILE", help="write the layout of the paper's tables"
    )
    parser.add_argument(
        "--model",
        default="this model",
        help='name in the LaTeX table, for example "EquiformerV2 + DeNS" (default: this model)',
    )


def run(args: argparse.Namespace) -> int:
    """Print the scores of the splits that have both results and an LMDB; 0."""
    target = board(args.board) if args.board else recorded_board(args.evaluation) or OC20
    results = result_paths(args, args.task, target, args.evaluation)
    labels = data_sections(args, args.task, target, args.evaluation)
    if args.evaluation is not None:  # may have more data sets than results
        labels = {split: each for split, each in labels.items() if split in results}
    if missing := [split for split in target.splits if (split in results) != (split in labels)]:
        has = "results" if missing[0] in results else "an LMDB (--lmdb)"
        lacks = "LMDB with labels: --lmdb {}=PATH" if missing[0] in results else "results"
        raise DensError(f"{missing[0]} has {has} but no {lacks.format(missing[0])}")
    scores = {
        args.task: {
            split: score_split(args.task, results[split], labels[split], split, args.hybrid)
            for split in target.splits
            if split in results
        }
    }
    print(score_table(scores, target), end="")
    for path, text in (
        (args.json, score_json(scores, target)),
        (args.latex, score_latex(scores, target, args.model)),
    ):
        if path is not None:
            write_text(path, text)
    return 0


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
        energies = (
            energies_of_trajectories(results)
            if results.is_dir()
            else energies_of_npz(results, hybrid)
        )
        return is2re_scores(energies, structures)
    read = positions_of_trajectories if results.is_dir() else positions_of_npz
    return is2rs_scores(read(results), structures)
