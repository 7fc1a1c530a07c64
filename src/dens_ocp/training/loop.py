"""A training run: its steps, each from its batch to its checkpoint, its end, and its stop.

fairchem-core 1.10.0 has the same loop inside ``OCPTrainer.train``; it cannot be stopped, does not
validate at its end, and waits for the device several times a step. The host is frozen, so the loop
is written anew here, and everything that a step does can be read from top to bottom.
"""

from __future__ import annotations

import copy
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from fairchem.core.common import distutils
from fairchem.core.common.logger import TensorboardLogger
from fairchem.core.modules.scaling.util import ensure_fitted

from dens_ocp.checkpoints import kept_checkpoints
from dens_ocp.launch import signals
from dens_ocp.launch.agreement import on_master
from dens_ocp.launch.steps import AgreedStop, StopTraining
from dens_ocp.relaxation import relaxation_options
from dens_ocp.training import form_choice, preconditions, step_randomness
from dens_ocp.training.checkpoints import resuming
from dens_ocp.training.metric_errors import Sums
from dens_ocp.training.training_log import TrainingLog

if TYPE_CHECKING:
    from dens_ocp.training.fairchem_trainer import HostTrainer


def run(trainer: HostTrainer, disable_eval_tqdm: bool = False) -> None:
    """A run, or the rest of it; at its end a validation and a checkpoint.

    SIGTERM, SIGINT (Ctrl-C), SIGUSR1 and SIGUSR2 end it after the current step, with a checkpoint;
    a validation, relaxations or predictions are broken off between two batches, and done at the
    resume.

    Raises:
        DensError: no atom of the data is free, and the config asks for free atoms; loss or gradient
            are not finite; the last checkpoint could not be written.
    """
    on_master(lambda: _check_free_atoms(trainer), trainer.device)
    resuming.from_a_kept_one(trainer)
    if trainer.step >= trainer.last_step and not evaluation_is_due(trainer):
        logging.warning(
            "Nothing to train: the checkpoint is at step %d and optim.max_epochs: %s ends at "
            "step %d",
            trainer.step,
            trainer.config["optim"]["max_epochs"],
            trainer.last_step,
        )
        return
    if _relaxes(trainer) and trainer.relax_dataset is not None:
        relaxation_options.checked(trainer.config["task"])
    signals.listen()
    checkpoints = trainer.checkpoints
    checkpoints.start_with_best()
    folder = checkpoints.folder if distutils.is_master() and not trainer.is_debug else None
    trainer.log = TrainingLog(trainer, trainer.last_step, folder)
    try:
        train(trainer, trainer.log, disable_eval_tqdm)
    except StopTraining as stop:
        _leave(trainer, stop.signal)
        return
    checkpoints.save_for_certain()
    signals.stop_listening()
    if folder is not None:
        run_dir = folder.parents[1]
        here = run_dir.resolve() == Path.cwd()
        trainer.log.finished(
            folder / kept_checkpoints.BEST,
            folder / kept_checkpoints.NEWEST,
            f"dens-ocp report {trainer.timestamp_id}" + ("" if here else f" --run-dir {run_dir}"),
        )


def evaluation_is_due(trainer: HostTrainer) -> bool:
    """The step is followed by a validation or by relaxations that have not been done."""
    optim, steps = trainer.config["optim"], len(trainer.train_loader)
    regular = trainer.step % optim.get("eval_every", steps) == 0
    last = trainer.step >= trainer.last_step
    ends_epoch = optim.get("eval_each_epoch", False) and trainer.step % steps == 0
    if trainer.step == 0 or not (regular or last or ends_epoch):
        return False
    return _validation_is_due(trainer) or _relaxations_are_due(trainer)


def evaluate(trainer: HostTrainer, disable_tqdm: bool) -> None:
    """The validation of a step, the best checkpoint, the plateau of the learning rate, and the
    relaxations, as far as they have not been done."""
    if _validation_is_due(trainer):
        metrics = trainer.validate(split="val", disable_tqdm=disable_tqdm)
        trainer.update_best(trainer.primary_metric, metrics, disable_eval_tqdm=disable_tqdm)
        if trainer.scheduler.scheduler_type == "ReduceLROnPlateau":
            trainer.scheduler.step(metrics=metrics[trainer.primary_metric]["metric"])
    if _relaxations_are_due(trainer):
        trainer.run_relaxations()
        trainer.checkpoints.relaxed()


def _validation_is_due(trainer: HostTrainer) -> bool:
    return trainer.val_loader is not None and trainer.checkpoints.validated_step != trainer.step


def _relaxations_are_due(trainer: HostTrainer) -> bool:
    return _relaxes(trainer) and trainer.checkpoints.relaxed_step != trainer.step


def _relaxes(trainer: HostTrainer) -> bool:
    return trainer.config["task"].get("eval_relaxations", False)


def _check_free_atoms(trainer: HostTrainer) -> None:
    targets, config = trainer.output_targets, trainer.config
    check_val, check_train = (
        preconditions.check_free_atoms_of_val, preconditions.check_free_atoms_of_train,
    )  # fmt: skip
    if trainer.val_dataset is not None:
        check_val(trainer.val_dataset, targets, trainer.evaluation_metrics)
    check_train(trainer.train_dataset, targets, config["loss_functions"])


def _leave(trainer: HostTrainer, number: int) -> None:
    if trainer.step:
        trainer.checkpoints.save_for_certain()
    if distutils.is_master():
        logging.info(
            "%s: stopped after step %d of %d; run the same command with --timestamp-id=%s to "
            "resume",
            signal.Signals(number).name,
            trainer.step,
            trainer.last_step,
            trainer.timestamp_id,
        )
    distutils.synchronize()
    if trainer.logger is not None and not isinstance(trainer.logger, TensorboardLogger):
        trainer.logger.mark_preempting()
    if signals.call_earlier_handler(number) and not distutils.is_master():
        raise SystemExit(0)  # submitit requeues from rank 0, which does not come back


def train(trainer: HostTrainer, log: TrainingLog, disable_eval_tqdm: bool = False) -> None:
    """From the step after ``trainer.step`` to the last one.

    Every rank takes the same way through it. Between two steps all ranks may stop at a signal.
    Nothing waits for the device but the guard of optimizers that cannot leave out a step by
    themselves (:mod:`~dens_ocp.training.guarded_step`), a printed line, a checkpoint and a
    validation.

    Args:
        trainer: with everything loaded. log: gets the numbers.

    Raises:
        StopTraining: at a signal.
        DensError: loss or gradient are not finite.
    """
    ensure_fitted(trainer._unwrapped_model, warn=True)
    trainer.stop, trainer.in_training = AgreedStop(), True
    try:
        _take_steps(trainer, log, disable_eval_tqdm)
    finally:
        trainer.stop.close()
        trainer.stop, trainer.in_training = None, False


def _take_steps(trainer: HostTrainer, log: TrainingLog, disable_eval_tqdm: bool) -> None:
    optim, print_every = trainer.config["optim"], trainer.config["cmd"]["print_every"]
    steps = len(trainer.train_loader)
    checkpoint_every = optim.get("checkpoint_every", optim.get("eval_every", steps))
    checkpoints, guard = trainer.checkpoints, trainer.guard
    trainer.sums = Sums(checkpoints.take_metrics())

    def after_step() -> None:
        if evaluation_is_due(trainer):
            evaluate(trainer, disable_eval_tqdm)
        if checkpoints.is_behind():  # it is of this step, and without its validation
            trainer.save()
        trainer.may_stop()

    if evaluation_is_due(trainer):
        logging.info("The validation of step %d was missed and is done now", trainer.step)
    after_step()
    for batch in _batches(trainer):
        trainer.model.train()
        form_choice.settle(trainer, batch)
        step_randomness.seed_step(trainer.seed, distutils.get_rank(), trainer.step)
        loaded = copy.copy(batch)
        outputs = trainer._forward(batch)
        terms = trainer.loss_terms(outputs, batch)
        loss = trainer.whole_loss(terms)
        errors = trainer.step_errors(outputs, batch, terms, loss)
        guard.take(loss, loaded, batch, errors)
        del outputs, terms, loss, errors  # the graph of the step

        ends_epoch = trainer.step % steps == 0
        prints = trainer.step % print_every == 0
        saves = ends_epoch if checkpoint_every == -1 else trainer.step % checkpoint_every == 0
        if prints or saves or evaluation_is_due(trainer):
            guard.settle()
        if prints:
            log.step(trainer.sums)
            trainer.sums = Sums()
        if saves:
            trainer.save()
        if trainer.scheduler.scheduler_type != "ReduceLROnPlateau":
            trainer.scheduler.step()
        if ends_epoch and torch.cuda.is_available():
            torch.cuda.empty_cache()
        after_step()
    guard.settle()


def _batches(trainer: HostTrainer) -> Iterator[Any]:
    """Batches of all steps that are left, on the CPU; ``step`` and ``epoch`` are set to each."""
    loader, max_epochs = trainer.train_loader, trainer.config["optim"]["max_epochs"]
    steps = len(loader)
    for epoch in range(trainer.step // steps, max_epochs):
        taken = trainer.step % steps
        trainer.train_sampler.set_epoch_and_start_iteration(epoch, taken)
        with signals.held():  # data workers start here
            batches = iter(loader)
        for number, batch in enumerate(batches, taken + 1):
            trainer.step = epoch * steps + number
            trainer.epoch = epoch + number / steps
            yield batch
