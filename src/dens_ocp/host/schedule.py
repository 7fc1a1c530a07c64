"""The learning rate schedule: conversions to steps, and a resume that loses no step."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import torch

from dens_ocp.errors import DensError
from dens_ocp.host import best_metric


def with_a_warmup_step(scheduler_params: dict[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """A copy in which the warm-up lasts one step at least.

    fairchem rounds ``warmup_epochs`` times the steps of an epoch down and divides by it.
    """
    params = copy.deepcopy(scheduler_params)
    warmup = params.get("warmup_epochs")
    if isinstance(warmup, (int, float)) and int(warmup * steps_per_epoch) < 1:
        params["warmup_epochs"] = (1 + 1e-6) / steps_per_epoch
        logging.warning(
            "optim.scheduler_params.warmup_epochs: %s is less than one of the %d steps of an "
            "epoch; warming up for one step",
            warmup,
            steps_per_epoch,
        )
    return params


def with_direction(
    scheduler_params: dict[str, Any], metric: str, validated: bool
) -> dict[str, Any]:
    """Parameters of ``ReduceLROnPlateau`` that lower the rate where the metric gets no better.

    torch's ``mode`` is ``min`` by default, whatever the metric.

    Args:
        scheduler_params: of the config; not changed.
        metric: ``primary_metric``.
        validated: the run has a validation set.

    Raises:
        DensError: ``mode`` is given and is the other one; there is no validation.
    """
    if not validated:
        raise DensError(
            "optim.scheduler: ReduceLROnPlateau looks at validations, and dataset.val has no src; "
            "give one, or use scheduler: LambdaLR"
        )
    mode = "max" if best_metric.larger_is_better(metric) else "min"
    given = scheduler_params.get("mode", mode)
    if given != mode:
        raise DensError(
            f"optim.scheduler_params.mode: {given} lowers the learning rate while {metric} "
            f"improves; leave mode out, or write {mode}"
        )
    return {**scheduler_params, "mode": mode}


def keep_direction(scheduler: Any, scheduler_params: dict[str, Any]) -> None:
    """A ``ReduceLROnPlateau`` from a checkpoint has the direction of this run's config."""
    mode = scheduler_params.get("mode")
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau) and scheduler.mode != mode:
        scheduler._init_is_better(mode, scheduler.threshold, scheduler.threshold_mode)
        scheduler._reset()


def catch_up(scheduler: torch.optim.lr_scheduler.LRScheduler, step: int) -> None:
    """Advance a scheduler that was saved one step behind its run.

    fairchem writes the checkpoint of a step before it advances the scheduler, so each resume
    repeats the learning rate of the last step.
    """
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        return
    if scheduler.last_epoch == step - 1:
        _advance(scheduler)


def lambdas(scheduler: Any) -> list[dict[str, Any]]:
    """What the config says of a ``LambdaLR``'s functions, to be kept over ``load_state_dict``."""
    return [dict(vars(each)) for each in getattr(scheduler, "lr_lambdas", [])]


def go_to(scheduler: Any, step: int, configured: list[dict[str, Any]]) -> None:
    """Put a ``LambdaLR`` at ``step`` of the schedule that this run's config asks for.

    Its state in a checkpoint holds the lengths of warm-up and run in steps of the run that wrote
    it. With another number of ranks an epoch has another number of steps.
    """
    for function, options in zip(scheduler.lr_lambdas, configured, strict=True):
        vars(function).update(options)
    scheduler.last_epoch, scheduler._step_count = step - 1, step
    _advance(scheduler)


def _advance(scheduler: torch.optim.lr_scheduler.LRScheduler) -> None:
    with warnings.catch_warnings():
        # the optimizer's own step was taken in the run that wrote the checkpoint
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
        scheduler.step()
