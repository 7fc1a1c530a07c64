"""What the page shows of a training run: curves, corrupted structures, config. The words are the
template's."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dens_ocp.checkpoints import metrics_file
from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.report import verdict
from dens_ocp.results.report.figures.corruption_gallery import (
    corruption_gallery,
    most_varied,
    sigmas_around,
)
from dens_ocp.results.report.figures.drawing import save_both
from dens_ocp.results.report.figures.learning_curves import ERRORS, SETTINGS, learning_curves
from dens_ocp.results.report.structure_views import corruption_view
from dens_ocp.results.report.training_run import TrainingRun, read_checkpoint
from dens_ocp.results.report.verdict import Check

PACKAGES = ("dens-ocp", "fairchem-core", "torch", "torch-geometric", "e3nn", "ase", "numpy")
"""Packages whose versions are told."""

_NOTHING = "\u2013"
_LOOKED_AT = 60  # structures among which the one to show is chosen


def versions() -> dict[str, str]:
    """Versions of Python and of ``PACKAGES`` here."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = _NOTHING
    return found


def training_checks(run: TrainingRun) -> list[Check]:
    """All checks of a training run."""
    checks = [verdict.finished(run.epoch, run.config.get("optim", {}).get("max_epochs"))]
    if run.series:
        primary = None if run.best is None else run.best[0]
        checks += [verdict.finite(run.series), verdict.validation(run.series, primary)]
    if run.series and run.active:
        checks.append(verdict.noise(run.series, run.dens))
        data = run.config.get("dataset") or {}
        forces = (run.config.get("outputs") or {}).get("forces") or {}
        if forces.get("eval_on_free_atoms", True):
            md_possible = data.get("format") == "dens_lmdb" and data.get("md_source") != "none"
            batch_size = int(run.config["optim"].get("batch_size", 1))
            checks.append(verdict.corrupted_share(run.series, run.dens, batch_size, md_possible))
    return [check for check in checks if check is not None]


def training_content(
    run: TrainingRun, evaluation: EvaluationFolder | None, out: Path
) -> dict[str, Any]:
    """What ``report.html.j2`` shows of a run; draws its curves into ``out``.

    Args:
        evaluation: of a checkpoint of this run, or None.
    """
    content: dict[str, Any] = {"run": run, "facts": _facts(run, evaluation), "curves": None}
    if run.series:
        runs = {run.name: run.series}
        zero = verdict.noise_of_zero(run.dens) if run.active else None
        errors = ERRORS if run.active else ERRORS[:-1]
        content["curves"] = save_both(
            lambda narrow: learning_curves(runs, zero, errors, narrow), out / "learning_curves.png"
        )
        settings = SETTINGS if run.active else SETTINGS[:1]
        content["schedule"] = save_both(
            lambda narrow: learning_curves(runs, None, settings, narrow), out / "schedule.png"
        )
    return content


def _facts(run: TrainingRun, evaluation: EvaluationFolder | None) -> dict[str, Any]:
    command = run.config.get("cmd", {})
    facts = {
        "state read from": run.inside(run.checkpoint),
        "step": run.step,
        "epoch": run.epoch,
        "best validation": f"{run.best[0]} {run.best[1]:.5g}" if run.best else _NOTHING,
        "model": run.config.get("model", {}).get("name", _NOTHING),
        "structures per step and rank": run.config.get("optim", {}).get("batch_size", _NOTHING),
        "ranks": max(1, int(run.config.get("gpus") or 1)),
        "seed": command.get("seed", _NOTHING),
        "curves read from": (
            run.inside(run.checkpoint.parent / metrics_file.NAME) if run.series else _NOTHING
        ),
    }
    if evaluation is None:
        return facts
    if evaluation.checkpoint is None:
        told = evaluation.description.get("checkpoint")
        told = f"{told}, which no longer exists" if told else "not known"
        return {**facts, "evaluated": told}
    content = read_checkpoint(evaluation.checkpoint)
    step, epoch = content.get("step"), content.get("epoch")
    return {
        **facts,
        "evaluated": run.inside(evaluation.checkpoint.resolve()),
        "its step": _NOTHING if step is None else step,
        "its epoch": _NOTHING if epoch is None else epoch,
    }


def gallery_content(
    run: TrainingRun | None, evaluation: EvaluationFolder | None, out: Path
) -> dict[str, Any] | None:
    """Corrupted structures, drawn with the run's options; None where no structure can be read."""
    if run is not None and not run.active:
        return None
    shown = _structure_to_show(run, evaluation)
    if shown is None:
        return None
    dens = DeNSConfig() if run is None else run.dens
    white = not (dens.all_atoms or shown.free.all())
    sigmas = sigmas_around(dens)
    return {
        "picture": save_both(
            lambda narrow: corruption_gallery(shown, sigmas, dens, narrow=narrow),
            out / "corrupted_structures.png",
        ),
        "view": corruption_view(shown, dens),
        "id": shown.id,
        "white": white,
        "masked": dens.encode == "masked" and white,
        "one_sigma": isinstance(dens.sigma, float),
    }


def _structure_to_show(
    run: TrainingRun | None, evaluation: EvaluationFolder | None
) -> Structure | None:
    """The most varied of some labelled structures of the first data set that can be read here."""
    sections = [] if evaluation is None else [*evaluation.sections("s2ef").values()]
    if run is not None:
        train = run.config.get("dataset") or {}
        for section in ({**train, **(run.config.get("val_dataset") or {})}, train):
            sections.append({key: each for key, each in section.items() if key[:2] != "md"})
    for section in sections:
        if not section.get("src"):
            continue
        try:
            structures = open_structures(section)
        except DensError:
            continue
        step = max(1, len(structures) // _LOOKED_AT)
        picked = (structures[index] for index in range(0, len(structures), step))
        labelled = [each for each in picked if each.forces is not None][:_LOOKED_AT]
        if labelled:
            return most_varied(labelled)
    return None


def versions_content(
    run: TrainingRun | None, evaluation: EvaluationFolder | None
) -> dict[str, Mapping[str, Any]]:
    """Versions by package: of training, of the evaluation, and here."""
    columns: dict[str, Mapping[str, Any]] = {}
    if run is not None:
        command = run.config.get("cmd", {})
        columns["training"] = {
            "fairchem-core": command.get("version", _NOTHING),
            "commit": command.get("commit", _NOTHING),
        }
    if evaluation is not None:
        columns["evaluation"] = evaluation.description.get("versions") or {}
    return {**columns, "this report": versions()}
