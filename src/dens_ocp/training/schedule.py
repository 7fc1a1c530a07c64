"""The learning rate schedule: conversions to steps, and a resume that loses no step."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any

import torch
from fairchem.core.modules.scheduler import LRScheduler

from dens_ocp.errors import DensError
from dens_ocp.settings import best_metric
from dens_ocp.settings.sections.optim import NO_SCHEDULER


def with_a_warmup_step(scheduler_params: dict[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """A copy in which the warm-up lasts one step at least.

    fairchem rounds ``warmup_epochs`` times the steps of an epoch down and divides by it.
    """
    params = copy.deepcopy(scheduler_params)
    warmup = params.get("warmup_epochs")
    if isinstance(warmup, (int, float)) and int(warmup * steps_per_epoch) < 1:
        params["warmup_epochs"] = (1 + 1e-6) / steps_per_epoch
        logging.warning(
            "optim.scheduler_params.warmup_epochs: %s is less than one step (an epoch has %d "
            "steps); the warm-up takes one step",
            warmup,
            steps_per_epoch,
        )
    return params


def for_equiformer_v2(optim: dict[str, Any], steps_per_epoch: int) -> dict[str, Any]:
    """A copy of ``optim`` with which fairchem's EquiformerV2 trainer can make its schedule.

    It asks for ``scheduler_params`` (``forces_trainer.py:35``). Without them it is told to make
    none, and :func:`in_steps` makes fairchem's other one.
    """
    optim = dict(optim)
    if "scheduler_params" not in optim:
        return {**optim, "scheduler": NO_SCHEDULER, "scheduler_params": {}}
    optim["scheduler_params"] = with_a_warmup_step(optim["scheduler_params"], steps_per_epoch)
    return optim


def in_steps(optimizer: torch.optim.Optimizer, optim: dict[str, Any]) -> LRScheduler:
    """The schedule of fairchem's base trainer, whose options stand in ``optim`` and count steps:
    ``scheduler`` and its arguments, or ``lr_milestones`` with ``lr_gamma`` and a warm-up.

    Without any of them the learning rate is constant (fairchem: a KeyError).
    """
    optim = dict(optim)
    if "scheduler" not in optim and not optim.get("lr_milestones"):
        logging.warning(
            "optim has no scheduler, scheduler_params or lr_milestones: the learning rate is "
            "constant, %s",
            optim["lr_initial"],
        )
        optim["scheduler"] = NO_SCHEDULER
    if optim.get("warmup_steps") == 0:
        optim["warmup_steps"] = -1  # fairchem divides by it at step 0
    return LRScheduler(optimizer, optim)


def with_fused_optimizer(optim: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A copy of ``optim`` with ``optimizer_params.fused`` on a GPU, unless it says how steps are
    taken."""
    params = dict(optim.get("optimizer_params") or {})
    optimizer = getattr(torch.optim, optim.get("optimizer", "AdamW"), None)
    able = optimizer in (torch.optim.AdamW, torch.optim.Adam)
    if device.type == "cuda" and able and not {"fused", "foreach", "capturable"} & set(params):
        params["fused"] = True
    return {**optim, "optimizer_params": params}


def with_direction(optim: dict[str, Any], metric: str) -> dict[str, Any]:
    """A copy of ``optim`` whose ``ReduceLROnPlateau`` lowers the rate where the metric gets no
    better.

    torch's ``mode`` is ``min`` by default, whatever the metric.

    Args:
        optim: arguments stand in ``scheduler_params``, or beside ``scheduler`` (:func:`in_steps`).
        metric: ``primary_metric``.

    Raises:
        DensError: ``mode`` is given and is the other one.
    """
    mode = "max" if best_metric.larger_is_better(metric) else "min"
    inside = "scheduler_params" in optim
    given = (optim["scheduler_params"] if inside else optim).get("mode", mode)
    if given != mode:
        raise DensError(
            f"optim.{'scheduler_params.' if inside else ''}mode: {given} lowers the learning "
            f"rate while {metric} improves; remove mode, or write {mode}"
        )
    if inside:
        return {**optim, "scheduler_params": {**optim["scheduler_params"], "mode": mode}}
    return {**optim, "mode": mode}


def keep_direction(scheduler: Any, optim: dict[str, Any]) -> None:
    """A ``ReduceLROnPlateau`` from a checkpoint has the direction of this run's config, after
    :func:`with_direction`."""
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        mode = optim.get("scheduler_params", optim)["mode"]
        if scheduler.mode != mode:
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
