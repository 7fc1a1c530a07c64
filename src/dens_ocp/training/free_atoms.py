"""Data sets none of whose atoms is free, where the config asks for free atoms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from dens_ocp.errors import DensError
from dens_ocp.training.metric_errors import metric_name


def check_train(dataset: Any, outputs: Mapping[str, Any], losses: list[dict[str, Any]]) -> None:
    """A loss of free atoms has some.

    Args:
        dataset: the training set. outputs: the trainer's targets. losses: ``loss_functions``.

    Raises:
        DensError: no record has a free atom; all are read then, else one as a rule.
    """
    names = {name for loss in losses for name in loss}
    asked = [name for name in names if _of_free_atoms(outputs, name, "train_on_free_atoms")]
    if asked and not _any_free(dataset):
        raise DensError(
            f"dataset.train: none of the atoms of its {len(dataset)} records is free (fixed: 0), "
            f"so nothing is learnt about {asked[0]}; correct `fixed` in the records, or set "
            f"outputs.{asked[0]}.train_on_free_atoms: False to train on fixed atoms too"
        )


def check_val(dataset: Any, outputs: Mapping[str, Any], evaluation: Mapping[str, Any]) -> None:
    """The metric that chooses the best checkpoint can be computed.

    Args:
        dataset: the validation set. outputs: the trainer's targets.
        evaluation: ``evaluation_metrics``.

    Raises:
        DensError: it is a metric of free atoms, and no record has one.
    """
    primary = evaluation["primary_metric"]
    for target, functions in evaluation["metrics"].items():
        if primary not in {metric_name(target, function) for function in functions}:
            continue
        if _of_free_atoms(outputs, target, "eval_on_free_atoms") and not _any_free(dataset):
            raise DensError(
                f"dataset.val: none of the atoms of its {len(dataset)} records is free (fixed: 0), "
                f"so evaluation_metrics.primary_metric: {primary} cannot be computed; take "
                f"another validation set or another metric (energy_mae), or set "
                f"outputs.{target}.eval_on_free_atoms: False to count fixed atoms too"
            )


def _of_free_atoms(outputs: Mapping[str, Any], target: str, option: str) -> bool:
    options = outputs.get(target) or {}
    return options.get("level") == "atom" and bool(options.get(option))


def _any_free(dataset: Any) -> bool:
    return any(
        bool((torch.as_tensor(dataset[index].fixed) == 0).any()) for index in range(len(dataset))
    )
