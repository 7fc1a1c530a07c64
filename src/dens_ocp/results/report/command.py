"""``dens-ocp report``: one page about a training run and its evaluation."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.results.report import page
from dens_ocp.results.report.content import Section
from dens_ocp.results.report.evaluation_folder import Evaluation, is_evaluation, read_evaluation
from dens_ocp.results.report.evaluation_sections import (
    evaluated,
    evaluation_checks,
    groups_section,
    key_numbers,
    magnitude_section,
    parity_section,
    relaxation_section,
    scores_section,
)
from dens_ocp.results.report.training_run import CHECKPOINTS, TrainingRun, find_folder, read_run
from dens_ocp.results.report.training_sections import (
    config_section,
    gallery_section,
    learning_section,
    training_checks,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dens-ocp report``."""
    parser.add_argument(
        "run",
        metavar="RUN",
        help="a training run: its name (2024-05-01-12-00-00-123456-first), its folder in "
        "checkpoints/, or a checkpoint; or an evaluation folder (it names its checkpoint)",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("."),
        help="the --run-dir of training: checkpoints/ and logs/ are in it",
    )
    parser.add_argument(
        "--evaluation",
        type=Path,
        metavar="DIR",
        help="folder of dens-ocp evaluate: adds errors and relaxations",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where to write index.html and the pictures (default: report/ in the evaluation, or "
        "<run-dir>/results/<run>/report)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the page.

    Raises:
        DensError: nothing of that name, or damaged files.
    """
    training, evaluation = _sources(args)
    out = args.out or _default_out(training, evaluation)
    if out.exists() and not out.is_dir():
        raise DensError(f"--out: {out} is a file; name a folder")
    path, verdict = write_report(training, evaluation, out)
    print(f"{verdict}\n{path}")
    return 0


def _sources(args: argparse.Namespace) -> tuple[TrainingRun | None, Evaluation | None]:
    """The training run and the evaluation that the arguments name."""
    if is_evaluation(Path(args.run)):
        if args.evaluation is not None:
            raise DensError(
                f"RUN: {args.run} is an evaluation folder, and --evaluation names another one; "
                "give one of them"
            )
        return evaluation_and_its_run(Path(args.run))
    training = read_run(find_folder(args.run, args.run_dir))
    return training, None if args.evaluation is None else read_evaluation(args.evaluation)


def evaluation_and_its_run(path: Path) -> tuple[TrainingRun | None, Evaluation]:
    """The evaluation in a folder, and the training run of its checkpoint where that is still there.

    Raises:
        DensError: no evaluation there, or damaged files.
    """
    evaluation = read_evaluation(path)
    checkpoint = evaluation.checkpoint
    if checkpoint is None or not any((checkpoint.parent / name).is_file() for name in CHECKPOINTS):
        return None, evaluation
    return read_run(checkpoint.parent), evaluation


def _default_out(training: TrainingRun | None, evaluation: Evaluation | None) -> Path:
    if evaluation is not None:
        return evaluation.report
    assert training is not None
    return training.run_dir / "results" / training.name / "report"


def write_report(
    training: TrainingRun | None, evaluation: Evaluation | None, out: Path
) -> tuple[Path, str]:
    """Write ``index.html`` and the pictures.

    Args:
        training: the run, or None.
        evaluation: the evaluation, or None.
        out: folder; made where it is not there.

    Returns:
        The path of the page, and its verdict: a line, and one for each warning and note.
    """
    done = None
    checks = [] if training is None else training_checks(training)
    if evaluation is not None:
        task = {} if training is None else training.config.get("task") or {}
        done = evaluated(evaluation, task)
        checks += evaluation_checks(done)
    sections: list[Section | None] = [
        learning_section(training, out),
        parity_section(done, out),
        magnitude_section(done, out),
        groups_section(done, out),
        relaxation_section(done, out),
        gallery_section(training, evaluation, out),
        scores_section(evaluation),
        config_section(training, evaluation),
    ]
    text = page.render(
        title=f"Report: {training.name if training else evaluation.path.name}",
        subtitle=_subtitle(training, evaluation),
        checks=checks,
        top=[key_numbers(done)],
        rest=[section for section in sections if section is not None],
    )
    return page.write(out / "index.html", text), page.spelled_out(checks)


def _subtitle(training: TrainingRun | None, evaluation: Evaluation | None) -> str:
    parts = []
    if training is not None:
        dens = training.dens
        with_dens = "with DeNS" if dens is not None and dens.active else "without DeNS"
        parts.append(f"{training.config.get('model', {}).get('name', 'model')} {with_dens}")
        if training.step is not None:
            parts.append(f"trained to step {training.step:,}")
    if evaluation is not None:
        board = evaluation.description.get("board")
        parts.append(f"evaluation {evaluation.path.name}" + (f" ({board})" if board else ""))
        if evaluation.checkpoint is not None:
            parts.append(f"of {evaluation.checkpoint.name}")
    parts.append(f"written {time.strftime('%Y-%m-%d %H:%M')}")
    return " \u00b7 ".join(parts)
