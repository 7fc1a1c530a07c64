"""Predictions, validation and relaxations: fairchem's, right and repeatable."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils
from fairchem.core.models.equiformer_v2.trainers.forces_trainer import EquiformerV2ForcesTrainer
from fairchem.core.trainers import ocp_trainer
from torch.utils.data import DataLoader

from dens_ocp.errors import DensError
from dens_ocp.host import (
    edge_frames,
    record_ids,
    relaxation_options,
    trajectories,
    whole_results,
)
from dens_ocp.host.agreement import on_master
from dens_ocp.host.dealt_batches import DealtBatches, WaitingLoader, patient_group
from dens_ocp.host.relaxation import relax_or_read
from dens_ocp.host.relaxation_metrics import RelaxationEvaluator
from dens_ocp.host.swapped import swapped

_RELAXED_LABELS = ("energy_relaxed", "pos_relaxed")


class EvaluatingTrainer(EquiformerV2ForcesTrainer):
    """What a trained model is used for. Each method says which trap of fairchem it removes."""

    _relax_dataset: Any = None
    _patient_group: Any = None
    _predicted: Any = None
    _system_ids_are_unique = False
    _in_training = False

    @property
    def relax_dataset(self) -> Any:
        """The data set of relaxations.

        Raises:
            DensError: there is none (fairchem: AttributeError).
        """
        if self._relax_dataset is None:
            raise DensError(
                "dataset.relax.src is missing: relaxations need initial structures, for example "
                "--dataset.relax.src=data/oc20/is2re/val_id"
            )
        return self._relax_dataset

    @relax_dataset.setter
    def relax_dataset(self, dataset: Any) -> None:
        self._relax_dataset = dataset

    def get_sampler(self, dataset: Any, batch_size: int, shuffle: bool) -> Any:
        if dataset is not self._relax_dataset:
            return super().get_sampler(dataset, batch_size, shuffle)
        in_groups = gp_utils.initialized()
        return DealtBatches(
            len(dataset),
            batch_size,
            gp_utils.get_dp_rank() if in_groups else distutils.get_rank(),
            gp_utils.get_dp_world_size() if in_groups else distutils.get_world_size(),
        )

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The model has its averaged weights (EMA), if there are any, inside the context.

        ``predict`` of one batch, which each step of a relaxation is, leaves them in the model for
        good (``trainers/ocp_trainer.py:528``): training went on from the average after the first
        relaxation.
        """
        ema = self.ema
        if ema is None:
            yield
            return
        ema.store()
        ema.copy_to()
        try:
            with swapped(self, "ema", None):
                yield
        finally:
            ema.restore()

    # ---- predictions -----------------------------------------------------------------------

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        """In evaluation the edge frames of a batch are the same in every run."""
        if self.model.training:
            return super()._forward(batch)
        with edge_frames.seeded(self.config["cmd"]["seed"] or 0, batch, self.device):
            return super()._forward(batch)

    def predict(
        self,
        data_loader: Any,
        per_image: bool = True,
        results_file: str | None = None,
        disable_tqdm: bool = False,
    ) -> Any:
        """fairchem's; ``save_results`` learns what was predicted."""
        self._predicted = data_loader.dataset if isinstance(data_loader, DataLoader) else None
        with self.averaged_weights():
            return super().predict(data_loader, per_image, results_file, disable_tqdm)

    def save_results(
        self, predictions: dict[str, Any], results_file: str | None, keys: Any = None
    ) -> None:
        """Write a prediction file, whole, with a prediction for every record.

        Raises:
            DensError: two records have one id (in training, a warning).
        """
        if results_file is None:
            return
        if self._predicted is not None:
            ids = record_ids.gathered(predictions["ids"])
            try:
                record_ids.check_unique(ids, self._predicted, "dataset.test")
            except DensError as error:
                if not self._in_training:
                    raise
                logging.warning("%s", error)
        with whole_results.whole_results(self.config["cmd"]):
            super().save_results(predictions, results_file, keys)

    # ---- relaxations -----------------------------------------------------------------------

    def run_relaxations(self) -> dict[str, Any]:
        """Relax ``dataset.relax``, or go on where a run was stopped.

        Systems with a finished trajectory are read from it, so the file of relaxed positions and
        the metrics cover all (fairchem leaves them out, and fails if none is left). In training
        (``task.eval_relaxations``) each validation has a folder ``step_N`` in ``traj_dir``.

        Returns:
            IS2RE and IS2RS metrics by name; none without ``energy_relaxed`` and ``pos_relaxed``.

        Raises:
            DensError: a mistake in ``task.relax_opt``; two systems with one sid; trajectories of
                another checkpoint or of other settings in ``traj_dir``.
        """
        dataset = self.relax_dataset
        task = relaxation_options.checked(self.config["task"])
        options = task["relax_opt"]
        if self._in_training and "traj_dir" in options:
            options["traj_dir"] = options["traj_dir"] / f"step_{self.step}"
        self._say_which_labels_are_missing(dataset[0])
        self._check_system_ids(dataset)
        if self._patient_group is None:
            self._patient_group = patient_group()
        loader = WaitingLoader(
            self.relax_loader, task.pop("num_relaxation_batches", None), self._wait_for_all
        )
        kept: dict[str, Any] = {}
        with ExitStack() as stack:
            stack.enter_context(self.averaged_weights())
            if "traj_dir" in options:
                self._claim(task)
            relax = partial(
                relax_or_read,
                reuse=not self._in_training,
                record=not gp_utils.initialized() or gp_utils.get_gp_rank() == 0,
            )
            for owner, name, value in (
                (self, "config", {**self.config, "task": task}),
                (self, "relax_loader", loader),
                # DDP's forward is a meeting of all ranks, and each relaxes on its own
                (self, "model", self._unwrapped_model),
                (ocp_trainer, "ml_relax", relax),
                (ocp_trainer, "check_traj_files", lambda batch, traj_dir: False),
                (ocp_trainer, "Evaluator", partial(RelaxationEvaluator, kept)),
            ):
                stack.enter_context(swapped(owner, name, value))
            stack.enter_context(whole_results.whole_results(self.config["cmd"]))
            super().run_relaxations()
        metrics = self._aggregate_metrics(
            {f"{task}_{name}": each for task in kept for name, each in kept[task].items()}
        )
        if metrics and distutils.is_master():
            shown = ", ".join(f"{name}: {metrics[name]['metric']:.4f}" for name in metrics)
            systems = int(metrics["is2re_energy_mae"]["numel"])
            logging.info("Relaxations of %d systems: %s", systems, shown)
        return metrics

    def _wait_for_all(self) -> None:
        if self._patient_group is not None:
            torch.distributed.barrier(self._patient_group)

    def _claim(self, task: dict[str, Any]) -> None:
        """The folder of trajectories is this run's; all ranks fail if it is not."""

        def claim() -> None:
            weights = trajectories.weights_digest(
                self._unwrapped_model, {**self.normalizers, **self.elementrefs}
            )
            settings = {"weights": weights, **relaxation_options.fingerprint(task)}
            trajectories.claim(task["relax_opt"]["traj_dir"], settings, self._in_training)

        on_master(claim, self.device)

    def _check_system_ids(self, dataset: Any) -> None:
        """Each system has a trajectory of its own."""
        if self._system_ids_are_unique:
            return
        mine = [index for batch in self.relax_sampler for index in batch]
        ids = record_ids.gathered(
            [record_ids.record_id(dataset[index], with_fid=False) for index in mine]
        )
        record_ids.check_unique(ids, dataset, "dataset.relax")
        self._system_ids_are_unique = True

    @staticmethod
    def _say_which_labels_are_missing(record: Any) -> None:
        missing = [name for name in _RELAXED_LABELS if getattr(record, name, None) is None]
        if missing and distutils.is_master():
            logging.warning(
                "dataset.relax has no %s, so there are no metrics; a label of another name needs "
                "dataset.relax.key_mapping: {NAME: %s}",
                " and no ".join(missing),
                missing[0],
            )
