"""The page of a run and its evaluation: where they are, the verdict, the template filled in, as one
file that needs nothing beside itself."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from yaml import safe_dump

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.report import evaluation_sections, training_sections
from dens_ocp.results.report.figures.drawing import DENSITY_FROM, DPI
from dens_ocp.results.report.figures.evaluation_figures import FEW, SHOWN
from dens_ocp.results.report.training_run import CHECKPOINTS, TrainingRun, find_folder, read_run
from dens_ocp.results.report.verdict import BAD, GOOD, LEVELS, NOTE, Check, worst
from dens_ocp.results.report.viewer import fragments
from dens_ocp.whole_files import write_text

_PIXELS_PER_INCH = 100  # of figures on the page
_SIGN = {GOOD: "\u2713", NOTE: "!", BAD: "\u2717"}
_WORD = {GOOD: "ok", NOTE: "note", BAD: "warning"}


def headline(checks: Sequence[Check]) -> str:
    """The verdict in one line.

    >>> headline([Check(GOOD, "Numbers", "fine"), Check(BAD, "Noise", "nothing")])
    '1 warning (Noise)'
    """
    if not checks:
        return "There is nothing to judge"
    parts = []
    for level in (BAD, NOTE):
        subjects = [check.subject for check in checks if check.level == level]
        if subjects:
            many = "" if len(subjects) == 1 else "s"
            parts.append(f"{len(subjects)} {_WORD[level]}{many} ({', '.join(subjects)})")
    if worst(checks) != BAD:
        parts.insert(0, "No warnings")
    return ", ".join(parts)


def spelled_out(checks: Sequence[Check]) -> str:
    """The verdict for a terminal: :func:`headline`, then what each warning and note says.

    >>> print(spelled_out([Check(GOOD, "Numbers", "Fine."), Check(BAD, "Noise", "Nothing.")]))
    1 warning (Noise)
      warning: Noise: Nothing.
    """
    found = [check for level in (BAD, NOTE) for check in checks if check.level == level]
    lines = [f"  {_WORD[check.level]}: {check.subject}: {check.text}" for check in found]
    return "\n".join([headline(checks), *lines])


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
                "only one of them"
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
        raise DensError(f"--evaluation: {path} holds no evaluation.json; give an evaluation folder")
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
    """Write ``index.html``, whole or not at all, and the pictures.

    Args:
        training: the run, or None.
        evaluation: the evaluation, or None.
        out: folder; made where it is not there.

    Returns:
        The path of the page, and its verdict: a line, and one for each warning and note.

    Raises:
        DensError: damaged files; a folder that cannot be written.
    """
    checks, of_run, of_evaluation, scores = [], None, None, {}
    if training is not None:
        checks += training_sections.training_checks(training)
        of_run = training_sections.training_content(training, evaluation, out)
    if evaluation is not None:
        task = {} if training is None else training.config.get("task") or {}
        read = evaluation_sections.read(evaluation, task)
        checks += evaluation_sections.evaluation_checks(read)
        of_evaluation = evaluation_sections.evaluation_content(read, out)
        files = [evaluation.scores("txt"), evaluation.scores("json")]
        scores = {file.name: file.read_text() for file in files if file.is_file()}
    environment = Environment(
        loader=PackageLoader("dens_ocp.results.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (number, median, short, yaml, base64, widest):
        environment.filters[function.__name__] = function
    gallery = training_sections.gallery_content(training, evaluation, out)
    views = [each["view"] for each in (of_evaluation, gallery) if each and each["view"]]
    ordered = sorted(checks, key=lambda check: -LEVELS.index(check.level))
    text = environment.get_template("report.html.j2").render(
        title=f"Report: {training.name if training else evaluation.path.name}",
        written=time.strftime("%Y-%m-%d %H:%M"),
        headline=headline(checks),
        worst=worst(checks),
        checks=[vars(c) | {"sign": _SIGN[c.level], "word": _WORD[c.level]} for c in ordered],
        density_from=DENSITY_FROM,
        few=FEW,
        shown=SHOWN,
        training=of_run,
        evaluation=of_evaluation,
        gallery=gallery,
        policy=fragments.POLICY,
        viewer_style=fragments.style() if views else "",
        viewer_script=fragments.script() if views else "",
        scores=scores,
        versions=training_sections.versions_content(training, evaluation),
    )
    path = out / "index.html"
    try:
        write_text(path, text)
    except OSError as error:
        raise DensError(f"--out: {path} cannot be written: {error}") from None
    return path, spelled_out(checks)


# ---- filters of the template -------------------------------------------------------------------


def number(value: float | None, digits: int = 1) -> str:
    """A number with ``digits`` after the point, or a dash.

    >>> number(3.14159), number(None)
    ('3.1', '\u2013')
    """
    return "\u2013" if value is None else f"{value:,.{digits}f}"


def median(values: np.ndarray) -> float | None:
    """The median of (n,) values; None without values."""
    return float(np.median(values)) if len(values) else None


def short(value: Any) -> str:
    """A value of a config; numbers with six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def yaml(content: Any) -> str:
    """A config as YAML; what YAML does not know, as text."""
    return safe_dump(json.loads(json.dumps(content, default=str)), sort_keys=False)


def base64(content: bytes) -> str:
    """A picture, to be written into the page: with 256 colours, which is a third of the size."""
    small = BytesIO()
    with Image.open(BytesIO(content)) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(small, "PNG", optimize=True)
    return b64encode(small.getvalue()).decode("ascii")


def widest(path: Path) -> int:
    """Pixels of a picture on the page at most."""
    with Image.open(path) as image:
        return image.width * _PIXELS_PER_INCH // DPI
