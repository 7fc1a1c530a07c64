"""The report of a run and its evaluation: where they are, and the page that is written."""

from __future__ import annotations

from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.report import evaluation_sections, page, training_sections
from dens_ocp.results.report.training_run import CHECKPOINTS, TrainingRun, find_folder, read_run


def sources(
    run: str, run_dir: Path, evaluation: Path | None
) -> tuple[TrainingRun | None, EvaluationFolder | None]:
    """The training run and the evaluation that the arguments of the command name.

    Raises:
        DensError: they are not there, or name two evaluations.
    """
    if EvaluationFolder(Path(run)).description_file.is_file():
        if evaluation is not None:
            raise DensError(
                f"RUN: {run} is an evaluation folder, and --evaluation names another one; give "
                "one of them"
            )
        return evaluation_and_its_run(Path(run))
    training = read_run(find_folder(run, run_dir))
    return training, None if evaluation is None else read_evaluation(evaluation)


def read_evaluation(path: Path) -> EvaluationFolder:
    """The evaluation in a folder.

    Raises:
        DensError: there is none, or its ``evaluation.json`` is not valid.
    """
    evaluation = EvaluationFolder(path.resolve())
    if not evaluation.description_file.is_file():
        raise DensError(f"--evaluation: {path} holds no evaluation.json; name an evaluation folder")
    _ = evaluation.description
    return evaluation


def evaluation_and_its_run(path: Path) -> tuple[TrainingRun | None, EvaluationFolder]:
    """The evaluation in a folder, and the training run of its checkpoint where that is still there.

    Raises:
        DensError: no evaluation there, or damaged files.
    """
    evaluation = read_evaluation(path)
    checkpoint = evaluation.checkpoint
    if checkpoint is None or not any((checkpoint.parent / name).is_file() for name in CHECKPOINTS):
        return None, evaluation
    return read_run(checkpoint.parent), evaluation


def write_report(
    training: TrainingRun | None, evaluation: EvaluationFolder | None, out: Path
) -> tuple[Path, str]:
    """Write ``index.html`` and the pictures.

    Args:
        training: the run, or None.
        evaluation: the evaluation, or None.
        out: folder; made where it is not there.

    Returns:
        The path of the page, and its verdict: a line, and one for each warning and note.
    """
    checks, of_run, of_evaluation, scores = [], None, None, {}
    if training is not None:
        checks += training_sections.training_checks(training)
        of_run = training_sections.training_content(training, evaluation, out)
    if evaluation is not None:
        task = {} if training is None else training.config.get("task") or {}
        done = evaluation_sections.evaluated(evaluation, task)
        checks += evaluation_sections.evaluation_checks(done)
        of_evaluation = evaluation_sections.evaluation_content(done, out)
        scores = evaluation_sections.score_files(evaluation)
    path = page.write(
        out / "index.html",
        f"Report: {training.name if training else evaluation.path.name}",
        checks,
        training=of_run,
        evaluation=of_evaluation,
        gallery=training_sections.gallery_content(training, evaluation, out),
        scores=scores,
        versions=training_sections.versions_content(training, evaluation),
    )
    return path, page.spelled_out(checks)
