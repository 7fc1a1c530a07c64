"""The arguments of fairchem's trainer, read by :mod:`dens_ocp.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.gaps import is_stand_in, torch_sparse
from dens_ocp.settings import run
from dens_ocp.settings.sections import hydra_model
from dens_ocp.settings.sections.dataset import SPLITS
from dens_ocp.settings.sections.optim import needed_for_training

_SECTIONS = {
    "optimizer": "optim", "model": "model", "dataset": "dataset", "task": "task",
    "outputs": "outputs", "loss_functions": "loss_functions",
    "evaluation_metrics": "evaluation_metrics", "logger": "logger",
}  # fmt: skip


def checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of the trainer's constructor, with the sections of the config typed.

    Raises:
        DensError: see :func:`dens_ocp.settings.run.checked`; with a training set also what training
            needs.
    """
    config = {name: arguments[argument] for argument, name in _SECTIONS.items()
              if argument in arguments}  # fmt: skip
    config = run.checked(config)
    _check_packages(config.get("model") or {})
    dataset = config.get("dataset") or {}
    if not isinstance(dataset, Mapping):
        dataset = dict(zip(SPLITS, dataset, strict=False))
    if (dataset.get("train") or {}).get("src"):
        needed_for_training(config["optim"])
        if config["optim"].get("scheduler") == "ReduceLROnPlateau":
            if not (dataset.get("val") or {}).get("src"):
                raise DensError(
                    "optim.scheduler: ReduceLROnPlateau needs a validation, but dataset.val has "
                    "no src; give --dataset.val.src=PATH, or another scheduler"
                )
    typed = {argument: config[name] for argument, name in _SECTIONS.items() if name in config}
    return {**arguments, **typed}


def of_checkpoint(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments for a calculator, from the config in a checkpoint, whose values have been read
    before; a hydra model becomes one of ours.

    Raises:
        DensError: see :func:`dens_ocp.settings.sections.hydra_model.in_our_form`.
    """
    model = hydra_model.with_dens(arguments.get("model"), arguments.get("optimizer"))
    return {**arguments, "model": model}


def _check_packages(model: Mapping[str, Any]) -> None:
    """Models that use torch-sparse are told of it before data are read."""
    backbone = model.get("backbone")
    for where, name in (
        ("model.name", model.get("name")),
        ("model.backbone.model", backbone.get("model") if isinstance(backbone, Mapping) else None),
    ):
        if str(name).startswith(torch_sparse.USERS) and is_stand_in("torch_sparse"):
            raise DensError(f"{where}: {name}: {torch_sparse.MESSAGE}")
