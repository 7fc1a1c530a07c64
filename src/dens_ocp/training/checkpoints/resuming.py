"""What a run takes from a checkpoint: weights, and, where it goes on, everything else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.modules.exponential_moving_average import ExponentialMovingAverage

from dens_ocp.checkpoints import checkpoint_files, kept_checkpoints, resume_notes, run_start
from dens_ocp.data import dataset_reference
from dens_ocp.launch.agreement import on_master
from dens_ocp.settings import configured_references
from dens_ocp.training import schedule

if TYPE_CHECKING:
    from dens_ocp.training.fairchem_trainer import HostTrainer

_OLD_TARGETS = {"target": "energy", "grad_target": "forces"}
"""Names of normalizers in old checkpoints (``trainers/base_trainer.py:643``)."""


def load(
    trainer: HostTrainer,
    fairchems: Callable[..., None],
    checkpoint_path: str,
    checkpoint: dict[str, Any] | None,
    inference_only: bool,
) -> None:
    """Load a checkpoint; without a training set, its weights only.

    In evaluation the averaged weights (EMA), if there are any, are put into the model
    (fairchem's ``OCPCalculator`` uses the plain ones). In training the average is kept when
    the file has none (fairchem drops it for good), and the learning rate goes on where it was;
    a damaged ``checkpoint.pt`` is passed over for the one before it.

    Args:
        fairchems: its ``load_checkpoint``; the others are its arguments.

    Raises:
        DensError: no such file, damaged, or of another architecture.
    """
    evaluation = inference_only or trainer.train_loader is None
    if checkpoint is None:
        checkpoint_files.refuse_folder(checkpoint_path)
        if not evaluation:
            whole = partial(kept_checkpoints.newest_whole, checkpoint_path)
            checkpoint_path = str(on_master(whole, trainer.device))
        elif Path(checkpoint_path).is_file():
            kept_checkpoints.check_whole(checkpoint_path)
        logging.info("Loading checkpoint from: %s", checkpoint_path)
        map_location = torch.device("cpu") if trainer.cpu else trainer.device
        checkpoint = checkpoint_files.read(checkpoint_path, map_location)
    checkpoint = {"normalizers": {}, "amp": None, **checkpoint}
    checkpoint = trainer.fitted_checkpoint(checkpoint, checkpoint_path, evaluation)
    if evaluation:
        _load_weights(trainer, fairchems, checkpoint_path, checkpoint, inference_only)
    else:
        _load_run(trainer, fairchems, checkpoint_path, checkpoint)


def _load_weights(
    trainer: HostTrainer,
    fairchems: Callable[..., None],
    checkpoint_path: str,
    checkpoint: dict[str, Any],
    inference_only: bool,
) -> None:
    # the checkpoint's go before the config's, whatever their size
    for target in checkpoint["normalizers"]:
        trainer.normalizers.pop(_OLD_TARGETS.get(target, target), None)
    checkpoint["elementrefs"] = checkpoint.get("elementrefs") or {}
    for target in checkpoint["elementrefs"]:
        trainer.elementrefs.pop(target, None)
    fairchems(checkpoint_path, checkpoint, inference_only=True)
    configured_references.complete_from(
        trainer.config["dataset"],
        checkpoint,
        checkpoint_path,
        trainer.normalizers,
        trainer.elementrefs,
    )
    for module in (*trainer.normalizers.values(), *trainer.elementrefs.values()):
        module.to(trainer.device)
    if inference_only:  # a calculator
        whole = checkpoint
        known = dataset_reference.CHECKPOINT_ENTRY in checkpoint
        if not known and Path(checkpoint_path).is_file():
            whole = checkpoint_files.read(checkpoint_path, torch.device("cpu"))
        trainer.dataset_reference = dataset_reference.of_checkpoint(whole)
    if checkpoint.get("ema"):
        average = ExponentialMovingAverage(trainer.model.parameters(), 0.0)
        average.load_state_dict(checkpoint["ema"])
        average.copy_to()


def _load_run(
    trainer: HostTrainer,
    fairchems: Callable[..., None],
    checkpoint_path: str,
    checkpoint: dict[str, Any],
) -> None:
    checkpoints, ema = trainer.checkpoints, trainer.ema
    null = trainer.scheduler.scheduler_type == "Null"
    scheduler = None if null else trainer.scheduler.scheduler
    configured = schedule.lambdas(scheduler)
    if "optimizer" in checkpoint:
        for group in checkpoint["optimizer"]["param_groups"]:
            # how steps are taken is this run's, what they have come to is the checkpoint's
            own = trainer.optimizer.defaults
            group.update({name: own[name] for name in ("fused", "foreach") if name in own})
        resume_notes.check_optimizer(trainer.optimizer, checkpoint["optimizer"], checkpoint_path)
    fairchems(checkpoint_path, checkpoint)
    run_start.say_what_has_no_effect(
        trainer.config, checkpoint, trainer.normalizers, lambdas=bool(configured)
    )
    if trainer.ema is None and ema is not None:
        trainer.ema = ExponentialMovingAverage(trainer.model.parameters(), trainer.ema_decay)
    _go_on(trainer, checkpoint)
    if "scheduler" in checkpoint and scheduler is not None:
        if configured:
            schedule.go_to(scheduler, trainer.step, configured)
        else:
            schedule.catch_up(scheduler, trainer.step)
        schedule.keep_direction(scheduler, trainer.config["optim"])
    newest = checkpoints.folder / kept_checkpoints.NEWEST
    if newest.exists() and newest.samefile(checkpoint_path):
        checkpoints.newest_step = trainer.step
    else:
        path = Path(checkpoint_path).resolve()
        of_this_run = (
            path.parent == checkpoints.folder.resolve() and path.name != kept_checkpoints.BEST
        )
        checkpoints.replaces_after = checkpoint.get("step", 0) if of_this_run else -1


def _go_on(trainer: HostTrainer, checkpoint: dict[str, Any]) -> None:
    """Take over where the other run stood; say what differs."""
    checkpoints = trainer.checkpoints
    checkpoints.best_of_resume = trainer.best_val_metric
    notes = checkpoint.get("resume", {})
    checkpoints.restored_metrics = notes.get("metrics")
    checkpoints.restored_form = notes.get("form")
    # fairchem's own checkpoints do not tell: taken for done
    checkpoints.validated_step = notes.get("validated_step", trainer.step)
    checkpoints.relaxed_step = notes.get("relaxed_step", trainer.step)
    now = checkpoints.notes()
    then = {**notes, "steps_per_epoch": resume_notes.steps_per_epoch(checkpoint)}
    found = resume_notes.differences(then, now)
    if not trainer.step or not found:
        return
    written = trainer.step
    if then["steps_per_epoch"] not in (None, now["steps_per_epoch"]):
        trainer.step = round(trainer.epoch * now["steps_per_epoch"])
        checkpoints.validated_step = checkpoints.relaxed_step = trainer.step
    logging.warning(
        "Resuming with other settings than those of the run that wrote the checkpoint: %s. Its "
        "step %d is step %d of %d here (epoch %.4g of %s); %s",
        "; ".join(found),
        written,
        trainer.step,
        trainer.last_step,
        trainer.epoch,
        trainer.config["optim"]["max_epochs"],
        resume_notes.consequences(then, now),
    )


def from_a_kept_one(trainer: HostTrainer) -> None:
    """``checkpoint.pt`` is not there (fairchem starts again then), but older ones are."""
    checkpoints = trainer.checkpoints
    if checkpoints.newest_step is not None or trainer.step or trainer.is_debug:
        return
    folder, path = checkpoints.folder, checkpoints.folder / kept_checkpoints.NEWEST
    if on_master(
        lambda: not path.exists() and folder.is_dir() and bool(kept_checkpoints.older(folder)),
        trainer.device,
    ):
        trainer.load_checkpoint(str(path))
