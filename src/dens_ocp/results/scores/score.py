"""``dens-ocp score``: scores of predictions or relaxations on labelled data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from dens_ocp.data.checks import check_lmdb_source
from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.relaxation.trajectories import (
    energies_of_trajectories,
    positions_of_trajectories,
)
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.scores.prediction_files import (
    energies_of_npz,
    positions_of_npz,
    read_predictions,
)
from dens_ocp.results.scores.result_paths import (
    chosen_board,
    data_sections,
    result_options,
    result_paths,
)
from dens_ocp.results.scores.score_tables import Score, score_json, score_latex, score_table
from dens_ocp.results.scores.scores import is2re_scores, is2rs_scores, s2ef_scores
from dens_ocp.whole_files import write_text

_FILE = click.Path(path_type=Path)


@click.command()
@result_options
@click.option(
    "--hybrid",
    is_flag=True,
    help="is2re: the npz files are predictions of an S2EF model on relaxed structures",
)
@click.option("--json", type=_FILE, metavar="FILE", help="write unrounded numbers")
@click.option("--latex", type=_FILE, metavar="FILE", help="write the layout of the paper's tables")
@click.option(
    "--model",
    default="this model",
    show_default=True,
    help='name in the LaTeX table, for example "EquiformerV2 + DeNS"',
)
def command(
    evaluation: Path | None,
    task: str,
    board_name: str | None,
    lmdb: tuple[str, ...],
    hybrid: bool,
    json: Path | None,
    latex: Path | None,
    model: str,
    **splits: Path | None,
) -> None:
    """Scores as the boards compute them, per split and averaged over the splits.

    \b
      s2ef   energy MAE (meV), force MAE (meV/A), force cosine, EFwT; on free atoms
      is2re  energy MAE (meV), EwT
      is2rs  average DwT, DwT, mean distance; on free atoms

    EVALUATION is a folder that `dens-ocp evaluate` made, in place of the paths of the splits.
    Labels are read from the LMDBs: those of validation sets, test sets have none.

    \b
      dens-ocp score EVALUATION --task s2ef
      dens-ocp score --task is2re --id relax/id --lmdb id=data/is2re/val_id --latex is2re.tex
    """
    folder = None if evaluation is None else EvaluationFolder(evaluation)
    board = chosen_board(board_name, folder)
    results = result_paths(splits, task, board, folder)
    labels = data_sections(lmdb, task, board, folder)
    if folder is not None:  # may have more data sets than results
        labels = {split: each for split, each in labels.items() if split in results}
    if missing := [split for split in board.splits if (split in results) != (split in labels)]:
        has = "results" if missing[0] in results else "an LMDB (--lmdb)"
        lacks = "LMDB with labels: --lmdb {}=PATH" if missing[0] in results else "results"
        raise DensError(f"{missing[0]} has {has} but no {lacks.format(missing[0])}")
    scores = {
        task: {
            split: score_split(task, results[split], labels[split], split, hybrid)
            for split in board.splits
            if split in results
        }
    }
    print(score_table(scores, board), end="")
    if json is not None:
        write_text(json, score_json(scores, board))
    if latex is not None:
        write_text(latex, score_latex(scores, board, model))


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
