"""A whole config, section by section."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from fairchem.core.common.registry import registry
from fairchem.core.common.utils import setup_imports

from dens_ocp.dens.options import is_missing, mapping
from dens_ocp.dens.options import read as read_section
from dens_ocp.errors import DensError, nearest
from dens_ocp.registration import MODELS_IN_WORDS
from dens_ocp.settings.sections import dataset, hydra_model, optim, signatures, targets, task
from dens_ocp.settings.sections.values import flag

SECTIONS = (
    "trainer",
    "dataset",
    "task",
    "outputs",
    "loss_functions",
    "evaluation_metrics",
    "model",
    "optim",
    "logger",
    "slurm",
    "hide_eval_progressbar",
    "evaluation",
    "includes",
)
"""Names at the top of a config that fairchem-core 1.10.0 or this package reads."""

COMMAND_LINE = (
    "mode", "identifier", "timestamp_id", "seed", "is_debug", "run_dir", "print_every", "amp",
    "checkpoint", "cpu", "submit", "summit", "world_size", "distributed_backend", "gp_gpus",
    "local_rank",
)  # fmt: skip
"""Names that fairchem sets itself, from its command line."""

OLDER = (
    "loss_fns", "eval_metrics", "model_attributes", "val_dataset", "test_dataset", "relax_dataset",
    "cmd", "gpus", "noddp", "compute_stats", "name", "note", "notes", "description",
)  # fmt: skip
"""Names of older configs and of those in checkpoints (``generate_yml_config``)."""


def checked(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config in which every number, flag and name is what it is meant to be.

    Args:
        config: of a run of this package's trainer, as in a file, overrides included; older
            spellings are those that fairchem's ``update_config`` translates. Sections may be
            missing. Not changed.

    Returns:
        A copy, with sections in the same form.

    Raises:
        DensError: an unknown name (with the nearest one), a value that cannot be read.
    """
    check_names(config)
    result = copy.deepcopy(dict(config))
    for name, read in (
        ("optim", optim.checked),
        ("dataset", dataset.checked),
        ("task", task.task),
        ("outputs", targets.outputs),
        ("loss_functions", targets.losses),
        ("loss_fns", targets.losses),
        ("evaluation_metrics", targets.metrics),
        ("eval_metrics", targets.metrics),
        ("logger", task.logger),
    ):
        if name in result:
            result[name] = read(result[name], name)
    if "model" in result:
        result["model"] = model(hydra_model.with_dens(result["model"], result.get("optim")))
    if "hide_eval_progressbar" in result:
        try:
            result["hide_eval_progressbar"] = flag(result["hide_eval_progressbar"] or False)
        except ValueError as error:
            value = result["hide_eval_progressbar"]
            raise DensError(f"hide_eval_progressbar: {value!r} {error}") from None
    targets.check_together(result)
    return result


def check_names(config: Mapping[str, Any], every: bool = True) -> None:
    """Names at the top of a config.

    Names that start with ``x-``, ``_`` or ``.`` are the user's own, for YAML anchors.

    Args:
        config: the whole.
        every: False: only those that are like a known one are mistakes.

    Raises:
        DensError: an unknown name, with the nearest.
    """
    known = (*SECTIONS, *COMMAND_LINE, *OLDER)
    for name in config:
        if name in known or str(name).startswith(("x-", "_", ".")):
            continue
        near = nearest(str(name), (*SECTIONS, *OLDER))
        if near or every:
            rest = near or f" (known: {', '.join(SECTIONS)}; your own names must start with x-)"
            raise DensError(f"unknown section {name}{rest}")


def model(block: Any, where: str = "model") -> Any:
    """The options of a model: numbers and flags that came as strings are read, by the types of the
    model's constructor.

    Raises:
        DensError: a value of the wrong type, for a model of this package; a model that is not
            known. Unknown options are left to the model.
    """
    if not isinstance(block, Mapping) or is_missing(block.get("name")):
        return block
    name = str(block["name"])
    cls = _model_class(name, where)
    ours = cls.__module__.startswith("dens_ocp.")
    if ours and hasattr(cls, "section"):  # its options are a pydantic model
        typed = read_section(cls.section, block, where, others=True)
    else:
        known = signatures.parameters(cls)
        options = {key: value for key, value in block.items() if key in known}
        typed = signatures.typed(options, cls, where, strict=ours)
    return {key: typed.get(key, value) for key, value in mapping(block, where).items()}


def _model_class(name: str, where: str) -> type:
    try:
        return registry.get_model_class(name)
    except (RuntimeError, KeyError, ValueError, ImportError):
        setup_imports()  # fairchem's own models register themselves when they are imported
    try:
        return registry.get_model_class(name)
    except (RuntimeError, KeyError, ValueError, ImportError) as error:
        known = registry.mapping["model_name_mapping"]
        (reason, *_) = str(error).strip("'\"").splitlines() or [""]
        raise DensError(
            f"{where}.name: {name} is not known{nearest(name, known)} ({reason}); give "
            f"--model.name={MODELS_IN_WORDS}"
        ) from None
