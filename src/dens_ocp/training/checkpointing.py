"""Checkpoints of a training run: written, kept, read back; what a resume takes from them."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils
from fairchem.core.modules.exponential_moving_average import ExponentialMovingAverage
from fairchem.core.trainers import base_trainer

from dens_ocp.checkpoints import (
    checkpoint_files,
    kept_checkpoints,
    resume_notes,
    run_folder,
    run_start,
)
from dens_ocp.data import dataset_reference
from dens_ocp.errors import DensError
from dens_ocp.launch.agreement import on_master
from dens_ocp.patched import swapped
from dens_ocp.settings import best_metric, configured_references
from dens_ocp.training import schedule
from dens_ocp.training.guarded_step import GuardedTrainer

TRAINING_STATE = (
    "epoch", "step", "best_val_metric", "primary_metric", "optimizer", "scheduler", "ema", "resume",
)  # fmt: skip
"""Entries of a checkpoint that belong to a run and not to its weights."""

_OLD_TARGETS = {"target": "energy", "grad_target": "forces"}
"""Names of normalizers in old checkpoints (``trainers/base_trainer.py:643``)."""


class CheckpointingTrainer(GuardedTrainer):
    """One folder for one run; its last checkpoints are whole, whatever happens."""

    _lock: Any = None

    def load(self, inference_only: bool) -> None:
        self.train_loader = None
        self._saved_step = self._validated_step = self._relaxed_step = None
        self._evaluated_since_save = False
        self._restored_metrics: dict[str, Any] | None = None
        self._newest_step: int | None = None
        self._replaces_after: int | None = None
        self._best_of_resume: float | None = None
        self._write_error: str | None = None
        self._best_failed = False
        self._seed = self.config["cmd"]["seed"] or 0
        if self.config["dataset"].get("src") and not inference_only and not self.is_debug:
            on_master(self._claim_folder, self.device)
        super().load(inference_only)

    def _claim_folder(self) -> None:
        self._lock = run_folder.claim(self._folder)
        kept_checkpoints.remove_unfinished(self._folder)

    @property
    def _folder(self) -> Path:
        return Path(self.config["cmd"]["checkpoint_dir"])

    @property
    def _last_step(self) -> int:
        return len(self.train_loader) * self.config["optim"]["max_epochs"]

    def save(
        self,
        metrics: Any = None,
        checkpoint_file: str = "checkpoint.pt",
        training_state: bool = True,
    ) -> str | None:
        """fairchem's, whole or not at all; None (and a warning) if it could not be written."""
        if self.ema:
            self.ema.collected_params = []  # a copy of the weights, left by a validation
        with swapped(base_trainer, "save_checkpoint", partial(self._write, training_state)):
            path = super().save(metrics, checkpoint_file, training_state)
        of_the_run = checkpoint_file == kept_checkpoints.NEWEST
        if of_the_run and (path is not None or not distutils.is_master() or self.is_debug):
            self._saved_step, self._evaluated_since_save = self.step, False
        return path

    def _write(
        self, training_state: bool, state: dict[str, Any], checkpoint_dir: str, checkpoint_file: str
    ) -> str | None:
        """In the place of fairchem's ``save_checkpoint``; on rank 0."""
        path, keep_as = Path(checkpoint_dir) / checkpoint_file, None
        reference = dataset_reference.beside(self.config["dataset"].get("src"))
        state[dataset_reference.CHECKPOINT_ENTRY] = dataset_reference.entry(reference)
        of_the_run = checkpoint_file == kept_checkpoints.NEWEST
        if training_state:
            state["resume"] = {
                **self._notes(),
                "validated_step": self._validated_step,
                "relaxed_step": self._relaxed_step,
                "metrics": resume_notes.plain(getattr(self, "metrics", None) or {}),
            }
            if of_the_run and self._newest_step not in (None, self.step):
                keep_as = path.with_name(f"checkpoint.{self._newest_step}.pt")
        keep = self.config["optim"].get("keep_checkpoints", 2)
        try:
            if self._replaces_after is not None:
                self._set_aside(path.parent)
            try:
                kept_checkpoints.write(state, path, keep_as)
            except OSError:
                if not of_the_run or not kept_checkpoints.older(path.parent):
                    raise
                # make room: the newest whole one stays
                kept_checkpoints.prune(path.parent, self.step, 1)
                kept_checkpoints.write(state, path, keep_as)
        except OSError as error:
            self._write_error = f"{path} cannot be written ({error.strerror or error})"
            self._best_failed = not training_state
            stays = f"; that of step {self._newest_step} stays" if self._newest_step else ""
            logging.warning(
                "%s of step %d was not saved: %s%s. Make room",
                path.name,
                self.step,
                self._write_error,
                stays if training_state else "",
            )
            return None
        if of_the_run:
            self._newest_step = self.step
            self._replaces_after = None
            kept_checkpoints.prune(path.parent, self.step, keep)
        return str(path)

    def _set_aside(self, folder: Path) -> None:
        """Before the first file of a run that was resumed from an earlier checkpoint than its last,
        or from that of another run: the checkpoints that it would replace."""
        names = kept_checkpoints.set_aside(folder, self._replaces_after, self._best_of_resume)
        self._replaces_after = None
        if names:
            logging.warning(
                "%s has checkpoints that this run does not go on from; they are kept as %s",
                folder,
                ", ".join(names),
            )

    def update_best(
        self, primary_metric: str, val_metrics: dict[str, Any], disable_eval_tqdm: bool = True
    ) -> None:
        """Save ``best_checkpoint.pt`` and predict the test set after the best validation so far.

        fairchem's takes a larger value for the better one of all metrics without "mae" in their
        name. A best checkpoint that could not be written is not the best one.

        Raises:
            DensError: the validation could not compute the metric.
        """
        if primary_metric not in val_metrics:
            raise DensError(
                f"evaluation_metrics.primary_metric: the validation of step {self.step} has no "
                f"{primary_metric}, because no record of dataset.val has what it compares; it has "
                f"{', '.join(val_metrics)}"
            )
        value = val_metrics[primary_metric]["metric"]
        before = best_metric.best_so_far(primary_metric, self.best_val_metric)
        self._best_failed = False
        if not best_metric.is_better(primary_metric, value, before):
            return
        self.best_val_metric = value
        self.save(metrics=val_metrics, checkpoint_file="best_checkpoint.pt", training_state=False)
        if self.test_loader is not None:
            self.predict(
                self.test_loader, results_file="predictions", disable_tqdm=disable_eval_tqdm
            )
        if on_master(lambda: self._best_failed, self.device):
            self.best_val_metric = before

    def _start_with_best(self) -> None:
        """Before fairchem's loop, which would begin with -1 for metrics without "mae"."""
        name = self.evaluation_metrics["primary_metric"]
        recorded = self.best_val_metric if self.primary_metric == name else None
        self.best_val_metric = best_metric.best_so_far(name, recorded)
        self.primary_metric = name

    def _save_for_certain(self) -> None:
        if self._saved_step == self.step and not self._evaluated_since_save:
            saved = True
        else:
            saved = self.save() is not None or self.is_debug

        def check() -> None:
            if not saved:
                raise DensError(
                    f"checkpoint of step {self.step}: {self._write_error}; make room and give the "
                    f"same command with --timestamp-id={self.timestamp_id}, which goes on from "
                    f"step {self._newest_step or 0}"
                )

        on_master(check, self.device)

    def _notes(self) -> dict[str, Any]:
        return {
            "ranks": distutils.get_world_size(),
            "graph_parallel": self.config["gp_gpus"],
            "batch_size": self.config["optim"].get("batch_size", 1),
            "seed": self._seed,
            "steps_per_epoch": len(self.train_loader),
        }

    def fitted_checkpoint(
        self, checkpoint: dict[str, Any], path: str, evaluation: bool
    ) -> dict[str, Any]:
        """The checkpoint in the form of this trainer's model."""
        return checkpoint

    def load_checkpoint(
        self,
        checkpoint_path: str,
        checkpoint: dict[str, Any] | None = None,
        inference_only: bool = False,
    ) -> None:
        """Load a checkpoint; without a training set, its weights only.

        In evaluation the averaged weights (EMA), if there are any, are put into the model
        (fairchem's ``OCPCalculator`` uses the plain ones). In training the average is kept when
        the file has none (fairchem drops it for good), and the learning rate goes on where it was;
        a damaged ``checkpoint.pt`` is passed over for the one before it.

        Raises:
            DensError: no such file, damaged, or of another architecture.
        """
        evaluation = inference_only or self.train_loader is None
        if checkpoint is None:
            checkpoint_files.refuse_folder(checkpoint_path)
            if not evaluation:
                whole = partial(kept_checkpoints.newest_whole, checkpoint_path)
                checkpoint_path = str(on_master(whole, self.device))
            elif Path(checkpoint_path).is_file():
                kept_checkpoints.check_whole(checkpoint_path)
            logging.info("Loading checkpoint from: %s", checkpoint_path)
            map_location = torch.device("cpu") if self.cpu else self.device
            checkpoint = checkpoint_files.read(checkpoint_path, map_location)
        checkpoint = {"normalizers": {}, "amp": None, **checkpoint}
        checkpoint = self.fitted_checkpoint(checkpoint, checkpoint_path, evaluation)
        if evaluation:
            # the checkpoint's go before the config's, whatever their size
            for target in checkpoint["normalizers"]:
                self.normalizers.pop(_OLD_TARGETS.get(target, target), None)
            checkpoint["elementrefs"] = checkpoint.get("elementrefs") or {}
            for target in checkpoint["elementrefs"]:
                self.elementrefs.pop(target, None)
            super().load_checkpoint(checkpoint_path, checkpoint, inference_only=True)
            configured_references.complete_from(
                self.config["dataset"],
                checkpoint,
                checkpoint_path,
                self.normalizers,
                self.elementrefs,
            )
            for module in (*self.normalizers.values(), *self.elementrefs.values()):
                module.to(self.device)
            if inference_only:  # a calculator
                whole = checkpoint
                known = dataset_reference.CHECKPOINT_ENTRY in checkpoint
                if not known and Path(checkpoint_path).is_file():
                    whole = checkpoint_files.read(checkpoint_path, torch.device("cpu"))
                self._dataset_reference = dataset_reference.of_checkpoint(whole)
            if checkpoint.get("ema"):
                average = ExponentialMovingAverage(self.model.parameters(), 0.0)
                average.load_state_dict(checkpoint["ema"])
                average.copy_to()
            return
        ema = self.ema
        scheduler = None if self.scheduler.scheduler_type == "Null" else self.scheduler.scheduler
        configured = schedule.lambdas(scheduler)
        if "optimizer" in checkpoint:
            resume_notes.check_optimizer(self.optimizer, checkpoint["optimizer"], checkpoint_path)
        super().load_checkpoint(checkpoint_path, checkpoint)
        run_start.say_what_has_no_effect(
            self.config, checkpoint, self.normalizers, lambdas=bool(configured)
        )
        if self.ema is None and ema is not None:
            self.ema = ExponentialMovingAverage(self.model.parameters(), self.ema_decay)
        self._go_on(checkpoint)
        if "scheduler" in checkpoint and scheduler is not None:
            if configured:
                schedule.go_to(scheduler, self.step, configured)
            else:
                schedule.catch_up(scheduler, self.step)
            schedule.keep_direction(scheduler, self.config["optim"])
        newest = self._folder / kept_checkpoints.NEWEST
        if newest.exists() and newest.samefile(checkpoint_path):
            self._newest_step = self.step
        else:
            path = Path(checkpoint_path).resolve()
            of_this_run = (
                path.parent == self._folder.resolve() and path.name != kept_checkpoints.BEST
            )
            self._replaces_after = checkpoint.get("step", 0) if of_this_run else -1

    def _go_on(self, checkpoint: dict[str, Any]) -> None:
        """Take over where the other run stood; say what differs."""
        self._best_of_resume = self.best_val_metric
        notes = checkpoint.get("resume", {})
        self._restored_metrics = notes.get("metrics")
        # fairchem's own checkpoints do not tell: taken for done
        self._validated_step = notes.get("validated_step", self.step)
        self._relaxed_step = notes.get("relaxed_step", self.step)
        now = self._notes()
        then = {**notes, "steps_per_epoch": resume_notes.steps_per_epoch(checkpoint)}
        found = resume_notes.differences(then, now)
        if not self.step or not found:
            return
        written = self.step
        if then["steps_per_epoch"] not in (None, now["steps_per_epoch"]):
            self.step = round(self.epoch * now["steps_per_epoch"])
            self._validated_step = self._relaxed_step = self.step
        logging.warning(
            "Resuming with other settings than the run that wrote the checkpoint: %s. Step %d of "
            "it is step %d of %d here (epoch %.4g of %s); %s",
            "; ".join(found),
            written,
            self.step,
            self._last_step,
            self.epoch,
            self.config["optim"]["max_epochs"],
            resume_notes.consequences(then, now),
        )

    def _go_on_from_a_kept_checkpoint(self) -> None:
        """``checkpoint.pt`` is not there (fairchem starts again then), but older ones are."""
        path = self._folder / kept_checkpoints.NEWEST
        if on_master(
            lambda: (
                not path.exists()
                and self._folder.is_dir()
                and bool(kept_checkpoints.older(self._folder))
            ),
            self.device,
        ):
            self.load_checkpoint(str(path))
