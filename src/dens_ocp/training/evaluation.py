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
from torch_geometric.data import Batch

from dens_ocp.data import opened_data
from dens_ocp.data.dataset_reference import DatasetReference
from dens_ocp.data.records import record_ids
from dens_ocp.errors import DensError
from dens_ocp.launch.agreement import on_master
from dens_ocp.patched import swapped
from dens_ocp.relaxation import (
    relaxation_options,
    repeatable_frames,
    trajectories,
    unusable_results,
    whole_results,
)
from dens_ocp.relaxation.dealt_batches import DealtBatches, WaitingLoader, patient_group
from dens_ocp.relaxation.relaxation_metrics import RelaxationEvaluator
from dens_ocp.relaxation.relaxing import relax_or_read
from dens_ocp.relaxation.unusable_results import Unusable
from dens_ocp.training.losses import of_this_rank
from dens_ocp.training.metric_errors import metric_name

_RELAXED_LABELS = ("energy_relaxed", "pos_relaxed")


class EvaluatingTrainer(EquiformerV2ForcesTrainer):
    """What a trained model is used for. Each method says which trap of fairchem it removes."""

    _relax_dataset: Any = None
    _patient_group: Any = None
    _predicted: Any = None
    _dataset_reference: DatasetReference | None = None  # only a calculator has one
    _unusable: Unusable | None = None
    loss_functions: Any = ()  # a calculator has none
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
        """fairchem's for training; elsewhere each record once."""
        if dataset is self.train_dataset:
            return super().get_sampler(dataset, batch_size, shuffle)
        in_groups = gp_utils.initialized()
        return DealtBatches(
            len(dataset),
            batch_size,
            gp_utils.get_dp_rank() if in_groups else distutils.get_rank(),
            gp_utils.get_dp_world_size() if in_groups else distutils.get_world_size(),
            every_rank=dataset is self._relax_dataset,
        )

    @contextmanager
    def on_its_own(self) -> Iterator[None]:
        """No rank waits for another inside: they may have different numbers of batches.

        DDP's forward is a meeting of all ranks, and so is the mean of a loss.
        """
        with (
            swapped(self, "model", self._unwrapped_model),
            swapped(self, "loss_functions", of_this_rank(self.loss_functions)),
        ):
            yield

    def validate(self, split: str = "val", disable_tqdm: bool = False) -> dict[str, Any]:
        """fairchem's, in which each record counts once, for any number of ranks."""
        unusable = Unusable(f"dataset.{split}")
        with self.on_its_own(), swapped(self, "_unusable", unusable):
            metrics = super().validate(split, disable_tqdm)
        self._say_what_is_unusable(unusable)
        asked = (self.evaluation_metrics.get("metrics") or {}).items()
        names = [metric_name(target, each) for target, functions in asked for each in functions]
        missing = [name for name in names if name not in metrics]
        if missing and distutils.is_master():
            logging.warning(
                "dataset.%s: %s: nothing to compute it of; fixed atoms do not count unless "
                "outputs.forces.eval_on_free_atoms is False",
                split,
                ", ".join(missing),
            )
        return metrics

    def _say_what_is_unusable(self, unusable: Unusable, hint: str = "") -> None:
        parameters = self._unwrapped_model.named_parameters()
        unusable.report(parameters, fatal=not self._in_training, hint=hint)

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
        """In evaluation the edge frames of a batch are the same in every run, and a structure that
        is not finite has no finite results."""
        if self.model.training:
            return super()._forward(batch)
        with repeatable_frames.repeatable(self.config["cmd"]["seed"] or 0, batch, self.device):
            outputs = super()._forward(batch)
        outputs = unusable_results.marked(outputs, batch, self.output_targets)
        if self._unusable is not None:
            self._unusable.look(outputs, batch, self.output_targets)
        return outputs

    def predict(
        self,
        data_loader: Any,
        per_image: bool = True,
        results_file: str | None = None,
        disable_tqdm: bool = False,
    ) -> Any:
        """fairchem's; ``save_results`` learns what was predicted. A calculator gets total energies,
        in float64, where the training set's had a reference.

        Raises:
            DensError: an element that the model has no embedding for.
        """
        self._predicted = data_loader.dataset if isinstance(data_loader, DataLoader) else None
        if isinstance(data_loader, Batch):  # of a calculator; records are checked as they are read
            opened_data.check_elements(self._unwrapped_model, data_loader.atomic_numbers)
        with self.averaged_weights(), self.on_its_own():
            predictions = super().predict(data_loader, per_image, results_file, disable_tqdm)
        if self._dataset_reference is not None and not per_image and "energy" in predictions:
            energy = predictions["energy"].double()
            reference = self._dataset_reference.of(data_loader).to(energy.device)
            predictions["energy"] = energy + reference.view(-1, 1)
        return predictions

    def save_results(
        self, predictions: dict[str, Any], results_file: str | None, keys: Any = None
    ) -> None:
        """Write a prediction file, whole, with a prediction for every record.

        Raises:
            DensError: two records have one id, or no prediction is finite (in training, a warning).
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
        unusable = Unusable("dataset.test")
        unusable.look_at_predictions(predictions)
        self._say_what_is_unusable(
            unusable, "; float16 ends at 65504, task.prediction_dtype: float32 has no such end"
        )
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
                another checkpoint or of other settings in ``traj_dir``; no structure has finite
                results (in training, a warning).
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
        limit = task.pop("num_relaxation_batches", None)
        loader = WaitingLoader(self.relax_loader, limit, self._wait_for_all)
        kept: dict[str, Any] = {}
        unusable = Unusable("dataset.relax")
        with ExitStack() as stack:
            stack.enter_context(self.averaged_weights())
            stack.enter_context(self.on_its_own())
            if "traj_dir" in options:
                self._claim(task, len(dataset) if limit is None else None)
            relax = partial(
                relax_or_read,
                reuse=not self._in_training,
                unusable=unusable,
                record=not gp_utils.initialized() or gp_utils.get_gp_rank() == 0,
            )
            for owner, name, value in (
                (self, "config", {**self.config, "task": task}),
                (self, "relax_loader", loader),
                (ocp_trainer, "ml_relax", relax),
                (ocp_trainer, "check_traj_files", lambda batch, traj_dir: False),
                (ocp_trainer, "Evaluator", partial(RelaxationEvaluator, kept)),
            ):
                stack.enter_context(swapped(owner, name, value))
            stack.enter_context(whole_results.whole_results(self.config["cmd"]))
            super().run_relaxations()
            self._say_what_is_unusable(unusable)
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

    def _claim(self, task: dict[str, Any], systems: int | None) -> None:
        """The folder of trajectories is this run's; all ranks fail if it is not."""

        def claim() -> None:
            weights = trajectories.weights_digest(
                self._unwrapped_model, {**self.normalizers, **self.elementrefs}
            )
            settings = {"weights": weights, **relaxation_options.fingerprint(task)}
            folder = task["relax_opt"]["traj_dir"]
            trajectories.claim(folder, settings, self._in_training, systems)

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
