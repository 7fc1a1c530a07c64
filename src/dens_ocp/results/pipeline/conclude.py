"""From results to scores, leaderboard files and the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dens_ocp.data.structures import open_structures
from dens_ocp.errors import DensError
from dens_ocp.relaxation.cell_trajectories import SUMMARY, read_summary, relaxed_of
from dens_ocp.results.leaderboard import matbench_discovery
from dens_ocp.results.leaderboard.boards import Board
from dens_ocp.results.leaderboard.reference import read_references
from dens_ocp.results.leaderboard.submission_sources import Choices
from dens_ocp.results.leaderboard.submission_writer import make_submission
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.options import EvaluationSettings
from dens_ocp.results.report.page import evaluation_and_its_run, write_report
from dens_ocp.results.scores.materials_scores import cell_scores
from dens_ocp.results.scores.score_tables import score_json, score_latex, score_table
from dens_ocp.results.scores.scores import Score, score_structures
from dens_ocp.whole_files import write_text


def conclude(
    settings: EvaluationSettings,
    folder: EvaluationFolder,
    *,
    report: bool,
    say: Callable[[str], None],
) -> None:
    """Score what has labels, write the files of the board, write the report.

    The same results give the same bytes.

    Args:
        settings: whose runs are all done.
        report: write ``report/index.html`` too.
        say: prints a line.

    Raises:
        DensError: results that do not fit the data; a leaderboard file that would be wrong.
    """
    scores = {}
    of_task = {"s2ef": settings.s2ef, "is2re": settings.is2re, "is2rs": settings.is2re}
    for task, sections in of_task.items():
        found = _scores(task, sections, folder, say)
        if found:
            scores[task] = found
    written = []
    if settings.relax_cell:
        scores["relax_cell"], files = _relaxed_cells(settings, folder, say)
        written += files
    if scores:
        board = settings.board or Board("scores", settings.splits, settings.splits, "float32")
        table = score_table(scores, board)
        texts = {
            "txt": table, "json": score_json(scores, board), "tex": score_latex(scores, board),
        }  # fmt: skip
        for kind, text in texts.items():
            write_text(folder.scores(kind), text)
            written.append(folder.scores(kind))
        say("\n" + table)
    if settings.board is not None:
        written += _submissions(settings, settings.board, folder, say)
    if report:
        path, verdict = write_report(*evaluation_and_its_run(folder.path), folder.report)
        written.append(path)
        say(verdict)
    say("written:")
    for path in written:
        say(f"  {path}")


_LABELS = {"s2ef": "forces", "is2re": "energy_relaxed", "is2rs": "pos_relaxed"}
"""The label without which a task has no scores."""


def _scores(
    task: str,
    sections: dict[str, dict[str, Any]],
    folder: EvaluationFolder,
    say: Callable[[str], None],
) -> dict[str, Score]:
    """Scores of the splits that have labels."""
    scores = {}
    for split, section in sections.items():
        structures = open_structures(section, f"evaluation.{task}.{split}")
        if getattr(structures[0], _LABELS[task]) is None:
            say(f"no {task} scores of {split}: its data set has no label {_LABELS[task]}")
            continue
        bar = tqdm(structures, desc=f"{task} {split}", total=len(structures), leave=False)
        try:
            scores[split] = score_structures(task, folder.results(task, split), bar)
        except DensError as error:
            raise DensError(f"{task}, {split}: {error}") from None
    return scores


def _relaxed_cells(
    settings: EvaluationSettings, folder: EvaluationFolder, say: Callable[[str], None]
) -> tuple[dict[str, Score], list[Path]]:
    """How the relaxations of each split ended, and their files for Matbench Discovery."""
    scores: dict[str, Score] = {}
    written = []
    name = settings.name or folder.path.name
    for split in settings.relax_cell:
        shards = settings.relaxation.shards
        folders = [folder.cells(split, shard, shards) for shard in range(shards)]
        found = [(each, read_summary(each / SUMMARY)) for each in folders]
        together = {sid: entry for _, summary in found for sid, entry in summary.items()}
        scores[split] = cell_scores(together)
        if failed := {sid: each["failure"] for sid, each in together.items() if each["failure"]}:
            first = "; ".join(f"{sid}: {why}" for sid, why in list(failed.items())[:3])
            say(
                f"{split}: {len(failed)} of {len(together)} structures could not be relaxed "
                f"({first})"
            )
        path = folder.matbench_discovery(name, split)
        relaxed = (
            (sid, relaxed_of(each, sid), entry["energy"])
            for each, summary in found
            for sid, entry in summary.items()
            if not entry["failure"]
        )
        bar = tqdm(
            relaxed, desc=path.name, total=len(together) - len(failed), leave=False, disable=None
        )
        matbench_discovery.write(path, name, bar)
        written.append(path)
    return scores, written


def _submissions(
    settings: EvaluationSettings,
    board: Board,
    folder: EvaluationFolder,
    say: Callable[[str], None],
) -> list[Path]:
    """The files of the board for which all splits are there, compared with the data sets."""
    written = []
    for tasks, sections in ((("s2ef",), settings.s2ef), (("is2re", "is2rs"), settings.is2re)):
        missing = [split for split in board.splits if split not in sections]
        if missing:
            for task in tasks:
                say(
                    f"no {task} file for {board.name}; these splits are missing: "
                    f"{', '.join(missing)}"
                )
            continue
        references = read_references({split: Path(s["src"]) for split, s in sections.items()})
        for task in tasks:
            sources = {split: folder.results(task, split) for split in board.splits}
            out, choices = folder.submission(task), Choices(progress=False)
            make_submission(out, task, board, sources, references, choices, force=True)
            written.append(out)
    return written
