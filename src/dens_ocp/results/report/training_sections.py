"""Sections of the page that a training run fills: curves, corrupted structures, config."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from dens_ocp.data.structures import Structure
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.results.report import verdict
from dens_ocp.results.report.content import Details, Missing, Part, Picture, Section, Table, Text
from dens_ocp.results.report.evaluation_folder import Evaluation, labelled_structures
from dens_ocp.results.report.figures.corruption_gallery import (
    LONGEST_FORCE,
    STRETCH,
    corruption_gallery,
    largest_force,
    most_varied,
    sigmas_around,
)
from dens_ocp.results.report.figures.drawing import save
from dens_ocp.results.report.figures.learning_curves import ERRORS, SETTINGS, learning_curves
from dens_ocp.results.report.training_run import TrainingRun, read_checkpoint
from dens_ocp.results.report.verdict import Check

PACKAGES = ("dens-ocp", "fairchem-core", "torch", "torch-geometric", "e3nn", "ase", "numpy")
_NO_RUN = "no training run was given; name it as RUN beside --evaluation"
_DENS_CURVES = (
    "DeNS structures are drawn apart from clean ones: their forces are those of uncorrupted atoms, "
    "and the noise MAE must go below the dotted line, which is predicting none. "
)
_SHARES = (
    " Right: the shares should scatter about p and p\u00b7r (lower where MD structures are in the "
    "data, or limits leave structures out)."
)
_LOOKED_AT = 60  # structures among which the one to show is chosen


def training_checks(run: TrainingRun) -> list[Check]:
    """All checks of a training run."""
    checks = [verdict.finished(run.epoch, run.config.get("optim", {}).get("max_epochs"))]
    if run.series:
        primary = None if run.best is None else run.best[0]
        checks += [verdict.finite(run.series), verdict.validation(run.series, primary)]
    dens = run.dens
    if run.series and dens is not None and dens.active:
        checks.append(verdict.noise(run.series, dens, run.print_every))
        data = run.config.get("dataset") or {}
        forces = (run.config.get("outputs") or {}).get("forces") or {}
        if forces.get("eval_on_free_atoms", True):
            checks.append(
                verdict.corrupted_share(
                    run.series, dens, run.print_every,
                    batch_size=int(run.config["optim"].get("batch_size", 1)),
                    md_possible=data.get("format") == "dens_lmdb"
                    and data.get("md_source") != "none",
                )
            )  # fmt: skip
    return [check for check in checks if check is not None]


def learning_section(run: TrainingRun | None, out: Path) -> Section:
    """Learning curves."""
    section = Section("Learning curves")
    if run is None:
        section.parts.append(Missing(_NO_RUN))
        return section
    if not run.series:
        section.parts.append(
            Missing(
                f"no logged numbers of {run.name} in the logs folder of its --run-dir; train with "
                "--logger=tensorboard (or wandb, whose run files are read from there), or bring "
                "that folder here"
            )
        )
        return section
    dens = run.dens
    active = dens is not None and dens.active
    zero = verdict.noise_of_zero(dens) if active else None
    panels = ERRORS if active else ERRORS[:-1]
    figure = learning_curves({run.name: run.series}, run.print_every, zero, panels)
    section.parts.append(
        Picture(
            save(figure, out / "learning_curves.png"),
            f"Learning curves of {run.name}: weighted loss terms; force MAE; energy MAE"
            + ("; noise MAE" if active else "")
            + ", against the training step.",
            "All lines should fall and flatten; validation (dots) should not rise again. "
            + (_DENS_CURVES if active else "")
            + f"Pale: means over {run.print_every} steps; strong: smoothed over up to seven of "
            "these.",
        )
    )
    panels = SETTINGS if active else SETTINGS[:1]
    figure = learning_curves({run.name: run.series}, run.print_every, panels=panels)
    section.parts.append(
        Picture(
            save(figure, out / "schedule.png"),
            f"Learning rate of {run.name}"
            + (" and shares of DeNS structures and corrupted atoms" if active else "")
            + ", against the training step.",
            "The learning rate should have come down at the end of a finished run."
            + (_SHARES if active else ""),
        )
    )
    return section


def gallery_section(run: TrainingRun | None, evaluation: Evaluation | None, out: Path) -> Section:
    """Corrupted structures, drawn with the run's options."""
    section = Section("Corrupted structures")
    if run is not None and (run.dens is None or not run.dens.active):
        section.parts.append(Missing("this run trains without DeNS; no structure is corrupted"))
        return section
    shown = _structure_to_show(run, evaluation)
    if shown is None:
        section.parts.append(
            Missing(
                "no labelled structures can be read here; it takes the data set of an evaluation "
                "split, or the val or train LMDB of the run's config, at its path"
            )
        )
        return section
    dens = (run.dens if run is not None else None) or DeNSConfig()
    figure = corruption_gallery(shown, sigmas_around(dens), dens)
    section.parts.append(
        Picture(
            save(figure, out / "corrupted_structures.png"),
            f"Structure {shown.id} and corrupted copies at rising sigma; first row all atoms, "
            "second row as in training, with arrows.",
            _gallery_caption(run is not None, dens, shown),
        )
    )
    return section


def _gallery_caption(of_run: bool, dens: DeNSConfig, shown: Structure) -> str:
    options = "" if of_run else " with the default options of DeNS (no training run is known)"
    white = "" if dens.all_atoms or shown.free.all() else "; white atoms are fixed and never moved"
    masked = ""
    if dens.encode == "masked" and white:
        masked = ", and of fixed atoms that are masked without being moved (encode: masked)"
    looks = (
        "At the run's \u03c3 the structure should look damaged, but not beyond recognition."
        if of_run and isinstance(dens.sigma, float)
        else "A structure should look damaged, but not beyond recognition."
    )
    return (
        f"Structure {shown.id}, corrupted{options}. Above: all atoms moved (as in Figures 3 to 5 "
        "of the paper); pale atoms stand where they were. Below: what the network is given in "
        f"training{white}. Orange arrows: the displacement it must predict ({STRETCH} times as "
        f"long). Blue arrows: the force that is encoded for the same atoms{masked} (the largest on "
        f"a free atom, {largest_force(shown):.2f} eV/\u00c5, is drawn {LONGEST_FORCE:g} \u00c5 "
        f"long). {looks}"
    )


def _structure_to_show(run: TrainingRun | None, evaluation: Evaluation | None) -> Structure | None:
    for source in _sources(run, evaluation):
        found = labelled_structures(source, _LOOKED_AT)
        if found:
            return most_varied(found)
    return None


def _sources(run: TrainingRun | None, evaluation: Evaluation | None) -> Iterator[Mapping[str, Any]]:
    if evaluation is not None:
        for split in evaluation.splits.values():
            if split.get("s2ef"):
                yield split["s2ef"]
    if run is not None:
        train = run.config.get("dataset") or {}
        for section in ({**train, **(run.config.get("val_dataset") or {})}, train):
            if section.get("src"):
                yield {key: value for key, value in section.items() if not key.startswith("md")}


def config_section(run: TrainingRun | None, evaluation: Evaluation | None) -> Section:
    """The exact config and versions."""
    section = Section("Config and versions")
    if run is None:
        section.parts.append(Missing(f"the config of training: {_NO_RUN}"))
    else:
        dens, optim = run.dens, run.config.get("optim", {})
        options = {} if dens is None else dens.model_dump()
        rows = [(name, _short(value)) for name, value in options.items()]
        if rows:
            section.parts.append(
                Table("Options of DeNS (optim.dens; sigma in \u00c5)", ("option", "value"), rows)
            )
        facts = {
            "state read from": run.inside(run.checkpoint),
            "step": run.step, "epoch": run.epoch,
            **_evaluated_checkpoint(run, evaluation),
            "best validation": "\u2013" if run.best is None else f"{run.best[0]} {run.best[1]:.5g}",
            "model": run.config.get("model", {}).get("name", "\u2013"),
            "structures in a step, per rank": optim.get("batch_size", "\u2013"),
            "ranks": max(1, int(run.config.get("gpus") or 1)),
            "seed": run.config.get("cmd", {}).get("seed", "\u2013"),
            "curves read from": "\u2013" if run.logged_in is None else run.inside(run.logged_in),
        }  # fmt: skip
        section.parts.append(
            Table("The run", ("", "value"), [(k, _short(v)) for k, v in facts.items()])
        )
        section.parts.append(
            Details("Config, as the checkpoint has it", [Text(as_yaml(run.config), True)])
        )
    section.parts.append(_versions(run, evaluation))
    if evaluation is not None:
        text = as_yaml(evaluation.description)
        section.parts.append(Details("evaluation.json", [Text(text, True)]))
    return section


def _evaluated_checkpoint(run: TrainingRun, evaluation: Evaluation | None) -> dict[str, Any]:
    """Which checkpoint the evaluation is of, and its step."""
    if evaluation is None:
        return {}
    path = evaluation.checkpoint
    if path is None:
        told = evaluation.description.get("checkpoint")
        return {"evaluated": f"{told}, which is not there any more" if told else "not known"}
    content = read_checkpoint(path)
    step, epoch = content.get("step"), content.get("epoch")
    return {
        "evaluated": run.inside(path.resolve()),
        "its step": "\u2013" if step is None else step,
        "its epoch": "\u2013" if epoch is None else epoch,
    }


def _versions(run: TrainingRun | None, evaluation: Evaluation | None) -> Part:
    columns: dict[str, Mapping[str, Any]] = {}
    if run is not None:
        command = run.config.get("cmd", {})
        columns["training"] = {
            "fairchem-core": command.get("version", "\u2013"),
            "commit": command.get("commit", "\u2013"),
        }
    if evaluation is not None:
        columns["evaluation"] = evaluation.description.get("versions") or {}
    columns["this report"] = _installed()
    names = list(dict.fromkeys(name for column in columns.values() for name in column))
    rows = [
        (name, *(_short(column.get(name, "\u2013")) for column in columns.values()))
        for name in names
    ]
    return Details("Versions", [Table("Versions", ("", *columns), rows)])


def _installed() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "\u2013"
    return found


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def as_yaml(content: Any) -> str:
    """A config as YAML; what YAML does not know, as text."""
    return yaml.safe_dump(json.loads(json.dumps(content, default=str)), sort_keys=False)
