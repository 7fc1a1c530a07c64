"""``dens-ocp score``: scores of predictions or relaxations on labelled data."""

from __future__ import annotations

from pathlib import Path

import click

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.scores.result_paths import (
    chosen_board,
    data_sections,
    result_options,
    result_paths,
)
from dens_ocp.whole_files import write_text

_FILE = click.Path(path_type=Path)


@click.command()
@result_options
@click.option(
    "--hybrid",
    is_flag=True,
    help="is2re: the npz files are predictions of an S2EF model on relaxed structures",
)
@click.option("--json", type=_FILE, metavar="FILE", help="write the unrounded numbers to FILE")
@click.option(
    "--latex",
    type=_FILE,
    metavar="FILE",
    help="write the scores to FILE in LaTeX, in the layout of the paper's tables",
)
@click.option(
    "--model",
    default="this model",
    show_default=True,
    help='name of the model in the LaTeX table, for example "EquiformerV2 + DeNS"',
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
    """Compute scores as the leaderboards do, per split and averaged over the splits.

    \b
      s2ef   energy MAE (meV), force MAE (meV/A), force cosine, EFwT; on free atoms
      is2re  energy MAE (meV), EwT
      is2rs  average DwT, DwT, mean distance; on free atoms

    Give either EVALUATION, a folder that `dens-ocp evaluate` wrote, or the paths of the splits.
    Labels are read from the LMDBs, so the splits must be validation sets: test sets have no labels.

    \b
      dens-ocp score EVALUATION --task s2ef
      dens-ocp score --task is2re --id relax/id --lmdb id=data/is2re/val_id --latex is2re.tex
    """
    from dens_ocp.results.scores.score_tables import score_json, score_latex, score_table
    from dens_ocp.results.scores.scores import score_split

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
