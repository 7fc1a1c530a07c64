"""The learning rate schedule: conversions to steps, and a resume that loses no step."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import torch


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
