"""Checkpoints of a training run: written, kept, read back; what a resume takes from them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairchem.core.common import distutils

from dens_ocp.checkpoints import (
    kept_checkpoints,
    run_folder,
)
from dens_ocp.data import dataset_reference
from dens_ocp.errors import DensError
from dens_ocp.launch.agreement import on_master
from dens_ocp.launch.steps import StopTraining
from dens_ocp.settings import best_metric

if TYPE_CHECKING:
    from dens_ocp.training.fairchem_trainer import HostTrainer

TRAINING_STATE = (
    "epoch", "step", "best_val_metric", "primary_metric", "optimizer", "scheduler", "ema", "resume",
)  # fmt: skip
"""Entries of a checkpoint that belong to a run and not to its weights."""


class Checkpoints:
    """The checkpoints of a trainer: one folder for one run, and its last ones are whole.

    Attributes:
        saved_step: of ``checkpoint.pt``, if this process wrote it. newest_step: of the file.
        validated_step, relaxed_step: the last that were.
        restored_metrics: errors since the last printed line of the run that this one goes on from.
        replaces_after: step of the checkpoint that this run goes on from, if the folder has later
            ones; -1: it goes on from elsewhere. best_of_resume: its best metric.
        form: what :mod:`dens_ocp.training.form_choice` has chosen, and on which device;
            restored_form: what the run had chosen that this one goes on from.
    """

    def __init__(self, trainer: HostTrainer) -> None:
        self.trainer = trainer
        self.saved_step: int | None = None
        self.validated_step: int | None = None
        self.relaxed_step: int | None = None
        self._evaluated_since_save = False
        self.restored_metrics: dict[str, Any] | None = None
        self.newest_step: int | None = None
        self.replaces_after: int | None = None
        self.best_of_resume: float | None = None
        self.form: dict[str, Any] | None = None
        self.restored_form: dict[str, Any] | None = None
        self._write_error: str | None = None
        self._best_failed = False
        self._lock: Any = None

    @property
    def folder(self) -> Path:
        return Path(self.trainer.config["cmd"]["checkpoint_dir"])

    def claim(self) -> None:
        """The folder is this run's, until its process ends; on rank 0."""
        self._lock = run_folder.claim(self.folder)
        kept_checkpoints.remove_unfinished(self.folder)

    # ---- what a run tells ------------------------------------------------------------------

    def validated(self) -> None:
        self.validated_step, self._evaluated_since_save = self.trainer.step, True

    def relaxed(self) -> None:
        self.relaxed_step, self._evaluated_since_save = self.trainer.step, True

    def is_behind(self) -> bool:
        """It was written before the validation of its step: the best metric is not in it."""
        return self._evaluated_since_save and self.saved_step == self.trainer.step

    def take_metrics(self) -> dict[str, Any] | None:
        """Errors since the last printed line of the run that this one goes on from; once."""
        metrics, self.restored_metrics = self.restored_metrics, None
        return metrics

    # ---- writing ---------------------------------------------------------------------------

    def save(
        self,
        metrics: Any = None,
        checkpoint_file: str = kept_checkpoints.NEWEST,
        training_state: bool = True,
    ) -> str | None:
        """Write a checkpoint of fairchem's form, whole or not at all.

        Args:
            metrics: of a validation. training_state: of the run; else the averaged weights alone.

        Returns:
            Its path, on rank 0; None (and a warning) if it could not be written.
        """
        trainer, path = self.trainer, None
        if trainer.ema:
            trainer.ema.collected_params = []  # a copy of the weights, left by a validation
        if distutils.is_master() and not trainer.is_debug:
            if training_state or not trainer.ema:
                path = self._write(metrics, checkpoint_file, training_state)
            else:
                trainer.ema.store()
                trainer.ema.copy_to()
                try:
                    path = self._write(metrics, checkpoint_file, training_state)
                finally:
                    trainer.ema.restore()
        of_the_run = checkpoint_file == kept_checkpoints.NEWEST
        if of_the_run and (path is not None or not distutils.is_master() or trainer.is_debug):
            self.saved_step, self._evaluated_since_save = trainer.step, False
        return path

    def _state(self, metrics: Any, training_state: bool) -> dict[str, Any]:
        trainer = self.trainer
        modules = {"normalizers": trainer.normalizers, "elementrefs": trainer.elementrefs}
        reference = dataset_reference.beside(trainer.config["dataset"].get("src"))
        state = {
            "state_dict": trainer.model.state_dict(),
            **{
                name: {target: each.state_dict() for target, each in own.items()}
                for name, own in modules.items()
            },
            "config": trainer.config,
            "val_metrics": metrics,
            "amp": trainer.scaler.state_dict() if trainer.scaler else None,
            dataset_reference.CHECKPOINT_ENTRY: reference,
        }
        if not training_state:
            return state
        scheduler = trainer.scheduler
        return state | {
            "epoch": trainer.epoch,
            "step": trainer.step,
            "optimizer": trainer.optimizer.state_dict(),
            "scheduler": (
                None if scheduler.scheduler_type == "Null" else scheduler.scheduler.state_dict()
            ),
            "ema": trainer.ema.state_dict() if trainer.ema else None,
            "best_val_metric": trainer.best_val_metric,
            "primary_metric": trainer.evaluation_metrics["primary_metric"],
            "resume": {
                **self.notes(),
                "validated_step": self.validated_step,
                "relaxed_step": self.relaxed_step,
                "metrics": trainer.sums.fetch(),
                "form": self.form or self.restored_form,
            },
        }

    def _write(self, metrics: Any, checkpoint_file: str, training_state: bool) -> str | None:
        """On rank 0."""
        trainer = self.trainer
        path, keep_as = self.folder / checkpoint_file, None
        state = self._state(metrics, training_state)
        of_the_run = checkpoint_file == kept_checkpoints.NEWEST
        if training_state and of_the_run and self.newest_step not in (None, trainer.step):
            keep_as = path.with_name(f"checkpoint.{self.newest_step}.pt")
        keep = trainer.config["optim"].get("keep_checkpoints", 2)
        try:
            if self.replaces_after is not None:
                self._set_aside(path.parent, self.replaces_after)
            try:
                kept_checkpoints.write(state, path, keep_as)
            except OSError:
                if not of_the_run or not kept_checkpoints.older(path.parent):
                    raise
                # make room: the newest whole one stays
                kept_checkpoints.prune(path.parent, trainer.step, 1)
                kept_checkpoints.write(state, path, keep_as)
        except OSError as error:
            self._write_error = f"{path} cannot be written ({error.strerror or error})"
            self._best_failed = not training_state
            stays = (
                f"; the checkpoint of step {self.newest_step} is kept" if self.newest_step else ""
            )
            logging.warning(
                "%s of step %d was not saved: %s%s. Free some space",
                path.name,
                trainer.step,
                self._write_error,
                stays if training_state else "",
            )
            return None
        if of_the_run:
            self.newest_step = trainer.step
            self.replaces_after = None
            kept_checkpoints.prune(path.parent, trainer.step, keep)
        return str(path)

    def _set_aside(self, folder: Path, after: int) -> None:
        """Before the first file of a run that was resumed from an earlier checkpoint than its last,
        or from that of another run: the checkpoints that it would replace."""
        names = kept_checkpoints.set_aside(folder, after, self.best_of_resume)
        self.replaces_after = None
        if names:
            logging.warning(
                "%s has checkpoints that this run does not resume from; they are kept as %s",
                folder,
                ", ".join(names),
            )

    def update_best(
        self, primary_metric: str, val_metrics: dict[str, Any], disable_eval_tqdm: bool
    ) -> None:
        """Save ``best_checkpoint.pt`` and predict the test set after the best validation so far.

        fairchem's takes a larger value for the better one of all metrics without "mae" in their
        name. A best checkpoint that could not be written is not the best one.

        Raises:
            DensError: the validation could not compute the metric.
        """
        trainer = self.trainer
        if primary_metric not in val_metrics:
            raise DensError(
                f"evaluation_metrics.primary_metric: the validation of step {trainer.step} has "
                f"no {primary_metric}, because no record of dataset.val has the label that it "
                f"needs; the validation has {', '.join(val_metrics)}"
            )
        value = val_metrics[primary_metric]["metric"]
        before = best_metric.best_so_far(primary_metric, trainer.best_val_metric)
        self._best_failed = False
        if not best_metric.is_better(primary_metric, value, before):
            return
        trainer.best_val_metric = value
        self.save(metrics=val_metrics, checkpoint_file="best_checkpoint.pt", training_state=False)
        if trainer.test_loader is not None:
            try:
                trainer.predict(
                    trainer.test_loader, results_file="predictions", disable_tqdm=disable_eval_tqdm
                )
            except StopTraining:  # validated and predicted again at the resume
                trainer.best_val_metric, self.validated_step = before, None
                raise
        if on_master(lambda: self._best_failed, trainer.device):
            trainer.best_val_metric = before

    def start_with_best(self) -> None:
        """Before the first step; fairchem begins with -1 for metrics without "mae"."""
        trainer = self.trainer
        name = trainer.evaluation_metrics["primary_metric"]
        recorded = trainer.best_val_metric if trainer.primary_metric == name else None
        trainer.best_val_metric = best_metric.best_so_far(name, recorded)
        trainer.primary_metric = name

    def save_for_certain(self) -> None:
        trainer = self.trainer
        if self.saved_step == trainer.step and not self._evaluated_since_save:
            saved = True
        else:
            saved = self.save() is not None or trainer.is_debug

        def check() -> None:
            if not saved:
                raise DensError(
                    f"checkpoint of step {trainer.step}: {self._write_error}; free some space "
                    f"and run the same command with --timestamp-id={trainer.timestamp_id} to "
                    f"resume from step {self.newest_step or 0}"
                )

        on_master(check, trainer.device)

    def notes(self) -> dict[str, Any]:
        trainer = self.trainer
        return {
            "ranks": distutils.get_world_size(),
            "graph_parallel": trainer.config["gp_gpus"],
            "batch_size": trainer.config["optim"].get("batch_size", 1),
            "seed": trainer.seed,
            "steps_per_epoch": len(trainer.train_loader),
        }
