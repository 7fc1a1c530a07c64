"""The config of an evaluation: its own section ``evaluation``, the rest is fairchem's."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fairchem.core.common.utils import merge_dicts
from pydantic import BeforeValidator, Field

from dens_ocp.data.checks import ASE_FORMATS
from dens_ocp.dens.config import parse_dens_config
from dens_ocp.dens.options import Section, parsed, read
from dens_ocp.errors import DensError, nearest
from dens_ocp.relaxation.cell_relaxation import CellRelaxation
from dens_ocp.results.leaderboard.boards import Board, board
from dens_ocp.settings import config_file, oc22_references
from dens_ocp.settings.configured_references import keeping_settings
from dens_ocp.settings.overrides import applied

_FROM_TRAINING = ("trainer", "model", "outputs", "loss_functions", "evaluation_metrics", "optim")


Sources = dict[str, str | dict[str, Any] | None]


class EvaluationSection(Section):
    """The section ``evaluation`` of a config::

        evaluation:
          board: OC20                        # or OC22; left out: no leaderboard files
          s2ef: {id: PATH, ood_ads: PATH}    # predictions
          is2re: {id: PATH}                  # relaxations: IS2RE and IS2RS
          relax_cell: {wbm: PATH}            # relaxations of cell and positions
          relaxation: {optimizer: FIRE, fmax: 0.02, steps: 500}    # how cells are relaxed
          name: eqV2-31M-dens                # of the model, in Matbench Discovery's files
          dataset: {format: lmdb}            # what the data sets share

    In place of a path a data set can have a section of its own: ``{src: PATH, format: ...}``; an
    empty path leaves a split out.
    """

    board: Annotated[Board | None, BeforeValidator(lambda name: board(str(name)))] = Field(
        None,
        description="leaderboard: OC20 or OC22; without it splits can have any name, and no "
        "leaderboard files are written",
    )
    dataset: dict[str, Any] = Field(
        {}, description="options that all data sets share, for example {format: lmdb}"
    )
    s2ef: Sources = Field(
        {},
        description="data sets to predict on, by split: a path, or options as in dataset; an "
        "empty path leaves a split out",
    )
    is2re: Sources = Field(
        {},
        description="data sets of initial structures to relax, by split; scored as IS2RE and IS2RS",
    )
    relax_cell: Sources = Field(
        {}, description="data sets of structures to relax together with their cells, by split"
    )
    relaxation: Any = Field(None, description="how cells are relaxed")
    name: str | None = Field(
        None,
        examples=["eqV2-31M-dens"],
        description="name of the model in files for Matbench Discovery (default: that of the "
        "evaluation folder)",
    )


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated.

    Attributes:
        board: the leaderboard, or None: splits of any name, no leaderboard files.
        s2ef: sections of data sets to predict on, by split.
        is2re: sections of data sets of initial structures to relax, by split.
        relax_cell: sections of data sets of structures whose cells are relaxed, by split.
        relaxation: how cells are relaxed.
        name: of the model in files for Matbench Discovery; None: that of the folder.
        host: fairchem's config of every run, without data sets (but for the normalizers and element
            references that ``dataset.train`` names).
    """

    board: Board | None
    s2ef: dict[str, dict[str, Any]]
    is2re: dict[str, dict[str, Any]]
    host: dict[str, Any]
    relax_cell: dict[str, dict[str, Any]] = field(default_factory=dict)
    relaxation: CellRelaxation = CellRelaxation()
    name: str | None = None
    trained: dict[str, Any] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits, in the order of the board or of the config."""
        named = dict.fromkeys([*self.s2ef, *self.is2re, *self.relax_cell])
        return tuple(named) if self.board is None else tuple(
            split for split in self.board.splits if split in named
        )  # fmt: skip

    @property
    def trained_with_dens(self) -> bool | None:
        """Whether the checkpoint's training had DeNS; None: its config cannot be read."""
        try:
            dens = parse_dens_config((self.trained or self.host).get("optim") or {})
        except DensError:
            return None
        return dens is not None and dens.active


def load_settings(
    path: Path, checkpoint: dict[str, Any], overrides: list[str]
) -> EvaluationSettings:
    """Read a config file; what it leaves open comes from the checkpoint's config.

    Args:
        path: YAML, with fairchem's ``includes``; its section ``evaluation`` is an
            :class:`EvaluationSection`.
        checkpoint: as read; its ``config`` may be missing or in the authors' form.
        overrides: ``--section.option=value``, as of fairchem.

    Raises:
        DensError: not a config, an unknown key or split, nothing to evaluate, no model.
    """
    given, section, sources = _read(path, overrides)
    s2ef, is2re, relax_cell = (sources[task] for task in _TASKS)
    trained = checkpoint.get("config") or {}
    _keep_trained_model(given, trained, path, overrides)
    relaxation = parsed(CellRelaxation, section.relaxation, "evaluation.relaxation")
    named = _named_references(given.pop("dataset", None))
    host = _host(given, trained)
    if named:
        host["dataset"] = {"train": named}
    if relax_cell and relaxation.moves_cells:
        _check_stress(trained)
    if section.name is not None and os.sep in section.name:
        raise DensError(f"evaluation.name: {section.name!r} cannot be the name of a file")
    return EvaluationSettings(
        section.board, s2ef, is2re, host, relax_cell, relaxation, section.name, trained
    )


_TASKS = ("s2ef", "is2re", "relax_cell")


def data_sets(path: Path, overrides: list[str]) -> dict[str, dict[str, Any]]:
    """Sections of the data sets that a config evaluates on, by their options
    (``evaluation.s2ef.id``).

    Raises:
        DensError: as :func:`load_settings`.
    """
    _, _, sources = _read(path, overrides)
    return {
        f"evaluation.{task}.{split}": data_set
        for task, of_task in sources.items()
        for split, data_set in of_task.items()
    }


def _read(
    path: Path, overrides: list[str]
) -> tuple[dict[str, Any], EvaluationSection, dict[str, dict[str, dict[str, Any]]]]:
    """A config without its section ``evaluation``, that section, and the sections of its data sets
    by task and split."""
    given = config_file.read(path, "--config-yml")
    given = applied(given, keeping_settings(overrides))
    block = given.pop("evaluation", None)
    if not isinstance(block, dict):
        raise DensError(
            f"--config-yml: {path} has no section evaluation; start with a copy of "
            "configs/oc20/evaluate.yml or configs/oc22/evaluate.yml"
        )
    known = EvaluationSection.model_fields
    for key in block:
        if key not in known:
            raise DensError(
                f"evaluation.{key} is not an option{nearest(key, known)}; options: "
                f"{', '.join(known)}"
            )
    section = EvaluationSection.model_construct(**read(EvaluationSection, block, "evaluation"))
    sources = {task: _sources(task, section) for task in _TASKS}
    if section.board is not None:
        _check_splits(sources, section.board)
    if not any(sources.values()):
        raise DensError(
            f"--config-yml: {path} names no data to evaluate on; give the paths of the splits in "
            "evaluation.s2ef, evaluation.is2re or evaluation.relax_cell"
        )
    return given, section, sources


def _check_splits(sources: dict[str, dict[str, dict[str, Any]]], of: Board) -> None:
    """Each split of a leaderboard has data of its own.

    Raises:
        DensError: two have the same; before anything is computed.
    """
    for task, of_task in sources.items():
        seen: dict[str, str] = {}
        for split, data_set in of_task.items():
            place = str(data_set.get("src"))
            twin = seen.setdefault(os.path.realpath(place), split)
            if twin != split:
                raise DensError(
                    f"evaluation.{task}.{twin} and evaluation.{task}.{split} are the same data "
                    f"set, {place}; with evaluation.board: {of.name} each split needs "
                    "its own; remove board to compute scores only"
                )


def _keep_trained_model(
    given: dict[str, Any], trained: dict[str, Any], path: Path, overrides: list[str]
) -> None:
    """Options of the model that the file and the checkpoint both have are the checkpoint's, which
    may have been trained with others than the file's; only the command line overrides them."""
    options, own = given.get("model"), trained.get("model")
    if not isinstance(options, dict) or not isinstance(own, dict):
        return
    asked = {each.partition("=")[0].removeprefix("--model.").split(".")[0] for each in overrides}
    other = [
        name
        for name, value in options.items()
        if name in own and name not in (*asked, "name") and own[name] != value
    ]
    for name in other:
        del options[name]
    if other:
        logging.warning(
            "%s: the model has other options in the checkpoint, which are used: %s", path,
            ", ".join(f"model.{name} {own[name]}" for name in other),
        )  # fmt: skip


def _check_stress(trained: dict[str, Any]) -> None:
    """A calculator of the checkpoint gives the stress.

    Raises:
        DensError: it does not.
    """
    outputs = trained.get("outputs") or {}
    if "stress" not in outputs:
        raise DensError(
            "evaluation.relax_cell: the checkpoint has no output stress, which is needed to "
            f"relax cells (its outputs: {', '.join(outputs) or 'not known'}); use a checkpoint "
            "that was trained with a stress head, or relax only positions: "
            "evaluation.relaxation.cell_filter: none"
        )


def _named_references(dataset: Any) -> dict[str, Any]:
    """Normalizers and element references of an included training config: those that the checkpoint
    lacks are read from it."""
    train = (dataset.get("train") or {}) if isinstance(dataset, dict) else {}
    transforms = oc22_references.with_linear_references(train).get("transforms") or {}
    kept = {
        option: transforms[option]
        for option in ("normalizer", "element_references")
        if transforms.get(option)
    }
    return {"transforms": kept} if kept else {}


_LABELS = {"r_energy": True, "r_forces": True, "r_stress": True}
"""What is read of the records of ASE's files where the config does not say it."""


def _sources(task: str, section: EvaluationSection) -> dict[str, dict[str, Any]]:
    """Sections of the data sets of a task by split."""
    chosen, sections = section.board, {}
    for split, source in getattr(section, task).items():
        if chosen is not None and split not in chosen.splits:
            raise DensError(
                f"evaluation.{task}.{split} is not a split of "
                f"{chosen.name}{nearest(split, chosen.splits)}; splits: "
                f"{', '.join(chosen.splits)}"
            )
        if source:  # an empty path: switched off on the command line
            own = source if isinstance(source, dict) else {"src": source}
            sections[split] = {"format": "lmdb", **section.dataset, **own}
            if task == "s2ef" and sections[split]["format"] in ASE_FORMATS:
                sections[split].setdefault("a2g_args", dict(_LABELS))
    return sections


_FAMILIES = ("equiformer_v2", "escn", "esen")


def _check_same_model(given: Any, trained: Any) -> None:
    """The config's section is of the checkpoint's kind of model: options of two kinds make none.

    Raises:
        DensError: it is not.
    """
    names = [str(each.get("name")) for each in (given, trained) if isinstance(each, dict)]
    families = {family for name in names for family in _FAMILIES if name.startswith(family)}
    if len(families) > 1:
        raise DensError(
            f"model.name: --config-yml has {names[0]}, but the checkpoint is of {names[1]}; "
            "remove the section model, because it is taken from the checkpoint"
        )


def _host(given: dict[str, Any], trained: dict[str, Any]) -> dict[str, Any]:
    """fairchem's config: the checkpoint's, overridden by the file's."""
    base = {key: trained[key] for key in _FROM_TRAINING if trained.get(key)}
    if isinstance(base.get("model"), str):  # the authors' form
        base["model"] = {"name": base["model"], **(trained.get("model_attributes") or {})}
    _check_same_model(given.get("model"), base.get("model"))
    config, _ = merge_dicts(base, given)
    if not isinstance(config.get("model"), dict) or "name" not in config["model"]:
        raise DensError(
            "the checkpoint has no config with a model; add the section model of its training "
            "config to the --config-yml (includes: [the training config])"
        )
    config["trainer"] = "dens_ocp.trainer.DeNSTrainer"
    config["logger"] = "tensorboard"
    optim = config["optim"] = dict(config.get("optim") or {})
    optim.setdefault("batch_size", 4)
    optim.setdefault("eval_batch_size", optim["batch_size"])
    optim.setdefault("num_workers", 0)
    return config
