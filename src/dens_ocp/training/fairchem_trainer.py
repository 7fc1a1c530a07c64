"""fairchem's trainer with its traps removed and a loop of our own; nothing of DeNS.

Each method says which trap of fairchem-core 1.10.0 it removes; the work is done by the other
modules of this package.
"""

from __future__ import annotations

import inspect
import os
from functools import partial
from typing import Any

import torch
from fairchem.core.common import gp_utils
from fairchem.core.common.utils import update_config
from fairchem.core.models.equiformer_v2.trainers.forces_trainer import EquiformerV2ForcesTrainer
from fairchem.core.trainers import base_trainer

from dens_ocp.checkpoints import run_folder
from dens_ocp.data.dataset_reference import Reference
from dens_ocp.dens.step_plan import MetricRows
from dens_ocp.errors import DensError
from dens_ocp.launch import processor, timestamps, wandb_login
from dens_ocp.launch.agreement import on_master
from dens_ocp.launch.data_parallel import FIND_UNUSED, FixedBuckets
from dens_ocp.launch.steps import AgreedStop, StopTraining
from dens_ocp.models.outputs import by_target
from dens_ocp.models.precision import half_of, in_float32
from dens_ocp.patched import swapped
from dens_ocp.relaxation import repeatable_frames, unusable_results
from dens_ocp.relaxation.unusable_results import Unusable
from dens_ocp.settings import best_metric, defaults, given_settings
from dens_ocp.training import (
    data_sets,
    evaluation,
    loop,
    losses,
    non_finite,
    schedule,
    step_randomness,
)
from dens_ocp.training.checkpoints import resuming
from dens_ocp.training.checkpoints.saving import Checkpoints
from dens_ocp.training.guarded_step import GuardedStep
from dens_ocp.training.metric_errors import Statistic, Sums, errors_of, of_all_ranks
from dens_ocp.training.training_log import TrainingLog


class HostTrainer(EquiformerV2ForcesTrainer):
    """fairchem's trainer with a loop of our own (:mod:`~dens_ocp.training.loop`), for any model.

    What it sets up is fairchem's, without the traps that each method names. It holds the objects
    that do the work of a run: ``checkpoints``, ``guard``, ``sums`` (errors since the last line).

    Raises:
        DensError: a mistake in config, data or checkpoint, before work is lost.
    """

    trainer_name: str | None = None
    """Dotted path of the class; with it a checkpoint says which trainer OCPCalculator has to load
    (fairchem writes the name of a task there, ``base_trainer.py:148``)."""

    train_loader: Any  # None without a training set, and so are optimizer and scheduler
    optimizer: Any
    scheduler: Any
    checkpoints: Checkpoints
    guard: GuardedStep
    sums: Sums
    log: TrainingLog | None = None
    in_training = False
    stop: AgreedStop | None = None
    questions_left = 0
    """Of predictions in training: before each batch, equally often on all ranks, all may stop."""
    unusable: Unusable | None = None
    predicted: Any = None  # the data set that is
    dataset_reference: Reference | None = None  # only a calculator has one
    patient_group: Any = None
    system_ids_are_unique = False
    loss_functions: Any = ()  # a calculator has none
    _relax_dataset: Any = None
    _model_outputs: Any = None
    half: torch.dtype | None = None  # of autocast

    @staticmethod
    def _get_timestamp(device: torch.device, suffix: str | None) -> str:
        return timestamps.unique_timestamp(device, suffix)

    # ---- set-up ----------------------------------------------------------------------------

    def __init__(self, *args: Any, **options: Any) -> None:
        options = inspect.signature(super().__init__).bind(*args, **options).arguments
        inference_only = options.get("inference_only", False)
        read = given_settings.of_checkpoint if inference_only else given_settings.checked
        options = read(options)
        if not options.get("is_debug", False):
            wandb_login.check(options.get("logger", "wandb"))
            on_master(partial(run_folder.check_run_dir, options.get("run_dir") or os.getcwd()))
        # between this and the line that prints the config fairchem changes nothing
        with swapped(base_trainer, "update_config", self._updated):
            super().__init__(**options)

    def _updated(self, config: dict[str, Any]) -> dict[str, Any]:
        config = update_config(config)
        return {**config, "trainer": self.trainer_name or config["trainer"]}

    def load(self, inference_only: bool) -> None:
        self.train_loader = None
        self.seed = self.config["cmd"]["seed"] or 0
        self.checkpoints = Checkpoints(self)
        non_finite.action_of(self.config["optim"])
        self.half = half_of(self.config, self.cpu)
        if self.half is torch.bfloat16:
            self.scaler = None  # it has the range of float32: nothing overflows
        if self.config["dataset"].get("src") and not inference_only and not self.is_debug:
            on_master(self.checkpoints.claim, self.device)
        super().load(inference_only)
        if self.train_loader is not None:
            self.guard, self.sums = GuardedStep(self), Sums()

    @property
    def last_step(self) -> int:
        return len(self.train_loader) * self.config["optim"]["max_epochs"]

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

    def load_task(self) -> None:
        self.config["evaluation_metrics"] = defaults.evaluation_metrics(
            self.config.get("evaluation_metrics"), self.config["outputs"]
        )
        if self.config["dataset"].get("src") and self.config["val_dataset"].get("src"):
            best_metric.check(
                self.config["evaluation_metrics"]["primary_metric"],
                defaults.metric_names(self.config["evaluation_metrics"]["metrics"]),
            )
        super().load_task()
        for target in self.output_targets.values():
            if target.get("level") == "atom":
                target.setdefault("train_on_free_atoms", True)
                target.setdefault("eval_on_free_atoms", True)

    def load_datasets(self) -> None:
        data_sets.load(self, super().load_datasets)

    def get_sampler(self, dataset: Any, batch_size: int, shuffle: bool) -> Any:
        return data_sets.sampler(self, super().get_sampler, dataset, batch_size, shuffle)

    def get_dataloader(self, dataset: Any, sampler: Any, workers: int | None = None) -> Any:
        return data_sets.loader(self, super().get_dataloader, dataset, sampler, workers)

    def load_references_and_normalizers(self) -> None:
        data_sets.fit(self, super().load_references_and_normalizers)

    def load_optimizer(self) -> None:
        """fairchem's; on a GPU ``fused``, where the optimizer has that and the config does not say
        ``fused`` or ``foreach``: one kernel, which can leave out a step that is not finite."""
        if self.train_loader is None:
            self.optimizer = None
            return
        optim = self.config["optim"]
        self.config["optim"] = schedule.with_fused_optimizer(optim, self.device)
        super().load_optimizer()
        self.config["optim"] = optim

    def load_extras(self) -> None:
        if self.train_loader is None:
            # evaluation: the averaged weights are put into the model when a checkpoint is loaded
            self.scheduler = self.clip_grad_norm = self.ema_decay = self.ema = None
            return
        optim = self.config["optim"]
        if optim.get("scheduler") == "ReduceLROnPlateau":
            metric = self.evaluation_metrics["primary_metric"]
            optim = schedule.with_direction(optim, metric)
        # fairchem turns epochs into steps in place; checkpoints keep what the user wrote
        self.config["optim"] = schedule.for_equiformer_v2(optim, len(self.train_loader))
        super().load_extras()
        self.config["optim"] = optim
        if "scheduler_params" not in optim:
            self.scheduler = schedule.in_steps(self.optimizer, optim)

    def load_model(self) -> None:
        # a GPU has no fixed order of sums anyway, and pays for the search of a fixed layout
        fixed = self.config["optim"].get(FIND_UNUSED, self.cpu)
        parallel = FixedBuckets if fixed else base_trainer.DistributedDataParallel
        with swapped(base_trainer, "DistributedDataParallel", parallel):
            super().load_model()
        self.model.register_forward_hook(self._note_outputs)
        if gp_utils.initialized():
            group = gp_utils.get_dp_rank()
            step_randomness.drop_paths_alike(
                self._unwrapped_model, lambda: (self.seed, group, self.step), self.device
            )

    def _note_outputs(self, model: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        self._model_outputs = in_float32(outputs) if model.training else None

    # ---- a step ----------------------------------------------------------------------------

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        """fairchem's. In evaluation the edge frames of a batch are the same in every run, and a
        structure that is not finite has no finite results."""
        if self.model.training:
            return self._outputs(batch)
        if self.questions_left:
            self.ask()
        with repeatable_frames.repeatable(self.seed, batch, self.device):
            outputs = self._outputs(batch)
        outputs = unusable_results.marked(outputs, batch, self.output_targets)
        if self.unusable is not None:
            self.unusable.look(outputs, batch, self.output_targets)
        return outputs

    def _outputs(self, batch: Any) -> dict[str, torch.Tensor]:
        """By output target, a row for each atom or structure, in float32; without asking the device
        for the number of atoms, as fairchem does."""
        batch = processor.on_device(batch, self.device)
        with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
            outputs = in_float32(self.model(batch))
        rows = {"atom": batch.pos.shape[0], "system": batch.natoms.numel()}
        denormalised = partial(self._denorm_preds, batch=batch)
        return by_target(outputs, self.output_targets, rows, denormalised)

    def whole_loss(self, terms: dict[str, torch.Tensor]) -> torch.Tensor:
        """The loss of a training step with every output of the model in its graph.

        DDP asks for every parameter in the graph; with fairchem's loss the ranks of a run without
        a loss of the energy fail at the second step.
        """
        loss = losses.total(terms.values())
        unused = losses.of_unused_outputs(self._model_outputs, terms)
        self._model_outputs = None
        return loss if unused is None else loss + unused

    def ask(self) -> None:
        """Between two batches of predictions in training: may all ranks stop?"""
        self.questions_left -= 1
        self.may_stop()

    def may_stop(self) -> None:
        """In training, between two batches.

        Raises:
            StopTraining: some rank has a signal.
        """
        number = 0 if self.stop is None else self.stop.signal()
        if number:
            raise StopTraining(number)

    # ---- metrics ---------------------------------------------------------------------------

    def _compute_metrics(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any, metrics: Any = None
    ) -> dict[str, Any]:
        """fairchem's numbers with one wait for the device (fairchem's own waits for each structure
        and metric). A batch without a free atom has metrics of its structures only."""
        sums = Sums(metrics)
        sums.add(self._errors(out, batch, evaluator))
        return sums.fetch()

    def _errors_of(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any, rows: MetricRows
    ) -> dict[str, torch.Tensor | Statistic]:
        """Errors by name of metric; ``out`` without gradients, ``rows`` of what counts."""
        targets = self.output_targets
        predictions = {name: self._denorm_preds(name, out[name], batch) for name in targets}
        return errors_of(predictions, batch, evaluator, rows, targets)

    def _aggregate_metrics(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return of_all_ranks(metrics)

    # ---- a run -----------------------------------------------------------------------------

    def train(self, disable_eval_tqdm: bool = False) -> None:
        """A run, or the rest of it: see :func:`dens_ocp.training.loop.run`."""
        loop.run(self, disable_eval_tqdm)

    def validate(self, split: str = "val", disable_tqdm: bool = False) -> dict[str, Any]:
        metrics = evaluation.validate(self, split, disable_tqdm)
        if split == "val":
            self.checkpoints.validated()
        if not self.in_training:
            evaluation.say_metrics(self, split, metrics)
        elif self.log is not None:
            self.log.validated(metrics)
        return metrics

    def predict(
        self,
        data_loader: Any,
        per_image: bool = True,
        results_file: str | None = None,
        disable_tqdm: bool = False,
    ) -> Any:
        return evaluation.predict(
            self, super().predict, data_loader, per_image, results_file, disable_tqdm
        )

    def save_results(self, predictions: Any, results_file: str | None, keys: Any = None) -> None:
        evaluation.save_results(self, super().save_results, predictions, results_file, keys)

    def run_relaxations(self) -> dict[str, Any]:
        return evaluation.run_relaxations(self, super().run_relaxations)

    def save(
        self,
        metrics: Any = None,
        checkpoint_file: str = "checkpoint.pt",
        training_state: bool = True,
    ) -> str | None:
        return self.checkpoints.save(metrics, checkpoint_file, training_state)

    def update_best(
        self, primary_metric: str, val_metrics: dict[str, Any], disable_eval_tqdm: bool = True
    ) -> None:
        self.checkpoints.update_best(primary_metric, val_metrics, disable_eval_tqdm)

    def load_checkpoint(
        self,
        checkpoint_path: str,
        checkpoint: dict[str, Any] | None = None,
        inference_only: bool = False,
    ) -> None:
        resuming.load(self, super().load_checkpoint, checkpoint_path, checkpoint, inference_only)

    def fitted_checkpoint(
        self, checkpoint: dict[str, Any], path: str, evaluation: bool
    ) -> dict[str, Any]:
        """The checkpoint in the form of this trainer's model."""
        return checkpoint
