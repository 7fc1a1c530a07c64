"""A training run that can be stopped at any time and goes on as if it had not been."""

from __future__ import annotations

import logging
import signal
import warnings
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils
from fairchem.core.common.logger import TensorboardLogger
from fairchem.core.trainers import base_trainer
from torch.nn.parallel.distributed import DistributedDataParallel
from torch.utils.data import DataLoader

from dens_ocp.checkpoints import kept_checkpoints
from dens_ocp.launch import signals
from dens_ocp.launch.agreement import Failures
from dens_ocp.launch.steps import AgreedStop, Stepwise, StopTraining, UnequalLoops, most_batches
from dens_ocp.patched import swapped
from dens_ocp.relaxation import relaxation_options
from dens_ocp.training import step_randomness
from dens_ocp.training.checkpointing import CheckpointingTrainer
from dens_ocp.training.training_log import TrainingLog

FIND_UNUSED = "ddp_find_unused_parameters"
"""Option of ``optim``: DDP looks for parameters outside the graph. Default: on CPUs."""


class FixedBuckets(DistributedDataParallel):
    """DDP that sums gradients in the same order at each step.

    It gathers gradients in buckets and lays them out anew after the first step, in the order in
    which they came. Where a gradient lies decides in which order gloo sums it over ranks, so with
    three ranks or more the first step after a resume differs by rounding. DDP does not do that
    when it looks for unused parameters.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module, find_unused_parameters=True)
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")


class ResumableTrainer(CheckpointingTrainer):
    """fairchem's loop, which can be stopped between two steps, with all that it leaves undone."""

    _questions_left = 0
    """Of predictions in training: before each batch, as often on every rank, all may stop."""
    _log: TrainingLog | None = None

    def load_model(self) -> None:
        # a GPU has no fixed order of sums anyway, and pays for the search of a fixed layout
        fixed = self.config["optim"].get(FIND_UNUSED, self.cpu)
        parallel = FixedBuckets if fixed else base_trainer.DistributedDataParallel
        with swapped(base_trainer, "DistributedDataParallel", parallel):
            super().load_model()
        if gp_utils.initialized():
            group = gp_utils.get_dp_rank()
            step_randomness.drop_paths_alike(
                self._unwrapped_model, lambda: (self._seed, group, self.step), self.device
            )

    def load_references_and_normalizers(self) -> None:
        """fairchem's, which reads and fits on rank 0 while the others wait for what it finds."""
        failures = Failures()
        with ExitStack() as stack:
            for name in ("load_references_from_config", "load_normalizers_from_config"):
                kept = failures.kept(getattr(base_trainer, name), {})
                stack.enter_context(swapped(base_trainer, name, kept))
            super().load_references_and_normalizers()
        failures.raise_on_all(self.device)

    def get_dataloader(self, dataset: Any, sampler: Any, workers: int | None = None) -> Any:
        loader = super().get_dataloader(dataset, sampler, workers)
        loader.worker_init_fn = signals.ignore_in_worker
        return loader

    # ---- a run -----------------------------------------------------------------------------

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        if self._questions_left:
            self._ask_in_predictions()
        if self.model.training:
            step_randomness.seed_step(self._seed, distutils.get_rank(), self.step)
        return super()._forward(batch)

    def train(self, disable_eval_tqdm: bool = False) -> None:
        """fairchem's loop; then what it leaves undone: the last validation and checkpoint.

        SIGTERM, SIGINT (Ctrl-C), SIGUSR1 and SIGUSR2 end it after the current step, with a
        checkpoint; a validation, relaxations or predictions are broken off between two batches, and
        done at the resume.

        Raises:
            DensError: the last checkpoint could not be written.
        """
        if self._newest_step is None and self.step == 0 and not self.is_debug:
            self._go_on_from_a_kept_checkpoint()
        max_epochs = self.config["optim"]["max_epochs"]
        if self.step >= self._last_step and not self._evaluation_is_due():
            logging.warning(
                "Nothing to train: the checkpoint is at step %d and optim.max_epochs: %s ends at "
                "step %d",
                self.step,
                max_epochs,
                self._last_step,
            )
            return
        if self._relaxes:
            relaxation_options.checked(self.config["task"])
            # fairchem asks for the word relax_dataset, and relaxes dataset.relax
            self.config["task"].setdefault("relax_dataset", dict(self.relax_dataset.config))
        signals.listen()
        self._start_with_best()
        self._stop = AgreedStop()
        self._done = self.step, self.epoch
        master = distutils.is_master()
        folder = self._folder if master and not self.is_debug else None
        self._log = TrainingLog(self, self._last_step, folder)
        validation = self.val_loader
        if validation is not None:  # of length 0 where other ranks have all batches
            validation = Stepwise(validation, self._may_stop)
        try:
            with ExitStack() as stack:
                stack.enter_context(self._log)
                for name, value in (
                    ("_in_training", True),
                    ("train_loader", Stepwise(self.train_loader, self._between_steps)),
                    ("val_loader", validation),
                ):
                    stack.enter_context(swapped(self, name, value))
                super().train(disable_eval_tqdm)
                if self._evaluation_is_due():
                    self._evaluate(disable_eval_tqdm)
        except StopTraining as stop:
            self._stop.close()
            self._leave(stop.signal)
            return
        self._stop.close()
        self._save_for_certain()
        signals.stop_listening()
        if folder is not None:
            run_dir = folder.parents[1]
            here = run_dir.resolve() == Path.cwd()
            self._log.finished(
                folder / kept_checkpoints.BEST,
                folder / kept_checkpoints.NEWEST,
                f"dens-ocp report {self.timestamp_id}" + ("" if here else f" --run-dir {run_dir}"),
            )

    @property
    def _relaxes(self) -> bool:
        return self.config["task"].get("eval_relaxations", False)

    def _evaluation_is_due(self) -> bool:
        """This step is followed by a validation or by relaxations that have not been done."""
        eval_every = self.config["optim"].get("eval_every", len(self.train_loader))
        regular = self.step % eval_every == 0 or self.step >= self._last_step
        if self.step == 0 or not (regular or self._ends_an_epoch):
            return False
        return (self.val_loader is not None and self._validated_step != self.step) or (
            self._relaxes and self._relaxed_step != self.step
        )

    @property
    def _ends_an_epoch(self) -> bool:
        """And ``optim.eval_each_epoch`` asks for a validation there."""
        each_epoch = self.config["optim"].get("eval_each_epoch", False)
        return each_epoch and self.step % len(self.train_loader) == 0

    def _evaluate(self, disable_tqdm: bool = True) -> None:
        """What fairchem's loop does every ``eval_every`` steps."""
        if self.val_loader is not None and self._validated_step != self.step:
            val_metrics = self.validate(split="val", disable_tqdm=disable_tqdm)
            self.update_best(self.primary_metric, val_metrics, disable_eval_tqdm=disable_tqdm)
            if self.scheduler.scheduler_type == "ReduceLROnPlateau":
                self.scheduler.step(metrics=val_metrics[self.primary_metric]["metric"])
        if self._relaxes and self._relaxed_step != self.step:
            self.run_relaxations()

    def _between_steps(self) -> None:
        """fairchem has set ``step`` and ``epoch`` to those that come; here they are the last ones.

        A checkpoint that was written before the validation of its step is written again after it,
        with the best metric.
        """
        coming = self.step, self.epoch
        self.step, self.epoch = self._done
        if self._restored_metrics is not None:
            self.metrics, self._restored_metrics = self._restored_metrics, None
        if self._evaluation_is_due():
            if not self._ends_an_epoch:
                logging.info("The validation of step %d is made up for", self.step)
            self._evaluate()
            self.model.train()
        if self._evaluated_since_save and self._saved_step == self.step:
            self.save()
        self._may_stop()
        self.step, self.epoch = self._done = coming

    def _may_stop(self) -> None:
        number = self._stop.signal()
        if number:
            raise StopTraining(number)

    def _leave(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.step:
            self._save_for_certain()
        if distutils.is_master():
            logging.info(
                "%s: stopped after step %d of %d; the same command with --timestamp-id=%s goes on",
                name,
                self.step,
                self._last_step,
                self.timestamp_id,
            )
        distutils.synchronize()
        if self.logger is not None and not isinstance(self.logger, TensorboardLogger):
            self.logger.mark_preempting()
        if signals.call_earlier_handler(number) and not distutils.is_master():
            raise SystemExit(0)  # submitit requeues from rank 0, which does not come back

    def validate(self, split: str = "val", disable_tqdm: bool = False) -> dict[str, Any]:
        try:
            metrics = super().validate(split, disable_tqdm)
        except StopTraining:
            if self.ema:
                self.ema.restore()  # fairchem puts the average into the model
            raise
        if split == "val":
            self._validated_step, self._evaluated_since_save = self.step, True
        if self._in_training and self._log is not None and distutils.is_master():
            self._log.validated(metrics)
        return metrics

    def predict(self, data_loader: Any, *args: Any, **options: Any) -> Any:
        """fairchem's; in training a signal breaks it off between two batches."""
        batches = isinstance(data_loader, DataLoader)
        questions = most_batches(data_loader) if self._in_training and batches else 0
        with swapped(self, "_questions_left", questions):
            return super().predict(data_loader, *args, **options)

    def _ask_in_predictions(self) -> None:
        self._questions_left -= 1
        self._may_stop()

    def save_results(self, *args: Any, **options: Any) -> None:
        while self._questions_left:  # another rank has more batches
            self._ask_in_predictions()
        super().save_results(*args, **options)

    def update_best(self, *args: Any, **options: Any) -> None:
        before = self.best_val_metric
        try:
            super().update_best(*args, **options)
        except StopTraining:  # in the predictions: validated and predicted again at the resume
            self.best_val_metric, self._validated_step = before, None
            raise

    def run_relaxations(self) -> dict[str, Any]:
        if not self._in_training:
            return super().run_relaxations()
        loops = UnequalLoops(self.device)
        try:
            with ExitStack() as stack:
                for name, value in (
                    ("relax_loader", Stepwise(self.relax_loader, loops.check)),
                    ("_wait_for_all", loops.wait),
                ):
                    stack.enter_context(swapped(self, name, value))
                metrics = super().run_relaxations()
        except StopTraining:
            if self.scheduler.scheduler_type == "ReduceLROnPlateau":
                self._validated_step = None  # its step comes after them, with the validation
            raise
        self._relaxed_step, self._evaluated_since_save = self.step, True
        return metrics
