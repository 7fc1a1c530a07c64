"""fairchem's EquiformerV2 trainer with its traps removed; knows nothing of DeNS.

Each override says which trap of fairchem-core 1.10.0 it removes; the work is done by the other
modules of this package.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from fairchem.core.common import distutils
from fairchem.core.common.utils import update_config
from fairchem.core.modules.normalization import element_references, normalizer
from fairchem.core.trainers import base_trainer

from dens_ocp.checkpoints import run_folder
from dens_ocp.data import load_balancing, opened_data
from dens_ocp.data.checks import check_dataset_paths
from dens_ocp.data.lmdb_environment import reopen_in_each_process
from dens_ocp.data.md_flags import without_inherited_md
from dens_ocp.data.records.collation import CheckingCollater
from dens_ocp.data.records.named_records import check_first_record, read_with
from dens_ocp.launch import data_workers, timestamps, wandb_login
from dens_ocp.launch.agreement import on_master
from dens_ocp.patched import swapped
from dens_ocp.relaxation import relaxation_options
from dens_ocp.settings import (
    best_metric,
    configured_references,
    defaults,
    given_settings,
    oc22_references,
)
from dens_ocp.training import free_atoms, losses, schedule
from dens_ocp.training.metric_errors import Fields, MetricRows, Statistic, fetched, metric_errors
from dens_ocp.training.resumable import ResumableTrainer

_SPLITS = {
    "train": "dataset",
    "val": "val_dataset",
    "test": "test_dataset",
    "relax": "relax_dataset",
}


class HostTrainer(ResumableTrainer):
    """Cosine and multistep schedules in epochs (fairchem's EquiformerV2 trainer), for any model.

    Raises:
        DensError: a mistake in config, data or checkpoint, before work is lost.
    """

    _model_outputs: Any = None

    @staticmethod
    def _get_timestamp(device: torch.device, suffix: str | None) -> str:
        return timestamps.unique_timestamp(device, suffix)

    trainer_name: str | None = None
    """Dotted path of the class; with it a checkpoint says which trainer OCPCalculator has to load
    (fairchem writes the name of a task there, ``base_trainer.py:148``)."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options = inspect.signature(super().__init__).bind(*args, **options).arguments
        if not options.get("inference_only", False):
            options = given_settings.checked(options)
        if not options.get("is_debug", False):
            wandb_login.check(options.get("logger", "wandb"))
            on_master(partial(run_folder.check_run_dir, options.get("run_dir") or os.getcwd()))
        # between this and the line that prints the config fairchem changes nothing
        with swapped(base_trainer, "update_config", self._updated):
            super().__init__(**options)

    def _updated(self, config: dict[str, Any]) -> dict[str, Any]:
        config = update_config(config)
        return {**config, "trainer": self.trainer_name or config["trainer"]}

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
        self.config["dataset"] = oc22_references.with_linear_references(self.config["dataset"])
        for split, name in _SPLITS.items():
            section = self.config[name]
            if not section.get("src"):
                # fairchem only asks whether the word is there; of relaxations, whether a word is
                section.pop("src", None)
                if split == "relax":
                    self.config[name] = {}
                continue
            inherits = split != "train" and section.get("use_train_settings", True)
            base = self.config["dataset"] if inherits else {}
            section = self.config[name] = without_inherited_md(section, base)
            check_dataset_paths({**base, **section}, f"dataset.{split}")
            opened_data.check_box_of(self._unwrapped_model, section["src"], split)
        # fairchem's collater asks the config, not the model, whether graphs are built on the fly,
        # and warns at every batch if in doubt
        self.config["model"].setdefault(
            "otf_graph", getattr(self._unwrapped_model, "otf_graph", True)
        )
        if self.config["relax_dataset"]:
            relaxation_options.checked(self.config["task"])
            optim = self.config["optim"]
            optim.setdefault("batch_size", optim.get("eval_batch_size", 1))
        with swapped(base_trainer, "create_dataset", opened_data.open_data_set):
            super().load_datasets()
        self._read_with_rules()

    def _read_with_rules(self) -> None:
        """Records are put right and checked as they are read, the first of each data set now."""
        for split, dataset in (
            ("train", self.train_dataset),
            ("val", self.val_dataset),
            ("test", self.test_dataset),
            ("relax", self._relax_dataset),
        ):
            if dataset is None:
                continue
            reopen_in_each_process(dataset)
            # of a validation set that nothing is trained beside, nobody may ask for labels
            trained = split == "val" and self.train_dataset is not None
            labels = self._labels() if split == "train" or trained else {}
            form = self.config[_SPLITS[split]].get("format", self.config["dataset"].get("format"))
            rules = opened_data.rules_of(self._unwrapped_model, split, labels, form)
            read_with(dataset, rules)
            check_first_record(dataset, f"dataset.{split}")
            if split == "val":
                read_with(dataset, replace(rules, required=self._labels()))

    def get_sampler(self, dataset: Any, batch_size: int, shuffle: bool) -> Any:
        if dataset is self._relax_dataset:  # dealt out system by system
            return super().get_sampler(dataset, batch_size, shuffle)
        optim = self.config["optim"]
        self.config["optim"] = load_balancing.prepared(dataset, optim)
        try:
            return super().get_sampler(dataset, batch_size, shuffle)
        finally:
            self.config["optim"] = optim

    def train(self, disable_eval_tqdm: bool = False) -> None:
        """fairchem's.

        Raises:
            DensError: no atom of the data is free, and the config asks for free atoms.
        """
        on_master(self._check_free_atoms, self.device)
        super().train(disable_eval_tqdm)

    def _check_free_atoms(self) -> None:
        targets = self.output_targets
        if self.val_dataset is not None:
            free_atoms.check_val(self.val_dataset, targets, self.evaluation_metrics)
        free_atoms.check_train(self.train_dataset, targets, self.config["loss_functions"])

    def load_references_and_normalizers(self) -> None:
        """fairchem's, which may fit them to the training set: its batches are checked too. Without
        a training set those of the config that need none: fairchem reads them all, also those that
        the checkpoint replaces, and fails where one is to be fitted."""
        if self.train_loader is not None:
            collater = self._checking(base_trainer.data_list_collater, "train")
            with (
                swapped(normalizer, "data_list_collater", collater),
                swapped(element_references, "data_list_collater", collater),
            ):
                super().load_references_and_normalizers()
            return
        read = partial(configured_references.read, self.config["dataset"])
        configured = on_master(read, self.device)
        for own, modules in (
            (self.normalizers, configured.normalizer),
            (self.elementrefs, configured.element_references),
        ):
            own.update({target: module.to(self.device) for target, module in modules.items()})

    def get_dataloader(self, dataset: Any, sampler: Any, workers: int | None = None) -> Any:
        plain = self.collater
        names = {"train": self.train_dataset, "val": self.val_dataset, "test": self.test_dataset}
        split = next((name for name, each in names.items() if each is dataset), "relax")
        self.collater = self._checking(plain, split)
        self.config["optim"].setdefault("num_workers", 0)
        try:
            loader = super().get_dataloader(dataset, sampler, workers)
            return data_workers.with_start_method(loader, self.config["optim"])
        finally:
            self.collater = plain

    def _checking(self, collater: Any, split: str) -> CheckingCollater:
        periodic = opened_data.is_periodic(self._unwrapped_model)
        return CheckingCollater(collater, f"dataset.{split}", periodic)

    def _labels(self) -> dict[str, str]:
        """Level of each target that the loss needs in every record."""
        return {
            target: self.output_targets[target]["level"]
            for loss in self.config["loss_functions"]
            for target in loss
            if target in self.output_targets
        }

    def load_optimizer(self) -> None:
        if self.train_loader is None:
            self.optimizer = None
        else:
            super().load_optimizer()

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

    # ---- loss ------------------------------------------------------------------------------

    def load_model(self) -> None:
        super().load_model()
        self.model.register_forward_hook(self._note_outputs)

    def _note_outputs(self, model: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        self._model_outputs = outputs if model.training else None

    def _whole_loss(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss of a training step with every output of the model in its graph.

        DDP asks for every parameter in the graph; with fairchem's loss the ranks of a run without
        a loss of the energy fail at the second step.
        """
        if self.model.training:
            used = {name for name, _ in self.loss_functions}
            used |= {"noise"} if "forces" in used else set()
            unused = losses.of_unused_outputs(self._model_outputs, used)
            self._model_outputs = None
            loss = loss if unused is None else loss + unused
            self._loss = loss.detach()
        return loss

    # ---- metrics ---------------------------------------------------------------------------

    @contextmanager
    def with_output_targets(self, targets: dict[str, Any]) -> Iterator[None]:
        """fairchem's ``_forward`` sees ``targets`` and no others."""
        own = self.output_targets
        self.output_targets = targets
        try:
            yield
        finally:
            self.output_targets = own

    def _compute_metrics(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any, metrics: Any = None
    ) -> dict[str, Any]:
        """fairchem's numbers with one wait for the device (fairchem's own waits for each structure
        and metric). A batch without a free atom has metrics of its structures only."""
        metrics = {} if metrics is None else metrics
        out = {name: value.detach() for name, value in out.items()}
        for name, statistic in fetched(self._errors(out, batch, evaluator)).items():
            metrics = evaluator.update(name, statistic, metrics)
        return metrics

    def _errors(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any
    ) -> dict[str, torch.Tensor | Statistic]:
        """Errors by name of metric. ``out`` is the model's output, without gradients."""
        return self._errors_of(out, batch, evaluator, MetricRows.of(batch))

    def _errors_of(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any, rows: MetricRows
    ) -> dict[str, torch.Tensor | Statistic]:
        """Of some structures. fairchem's ``_compute_metrics`` up to the evaluator: it cannot be
        called, because it counts free atoms in a loop that waits for the device."""
        predictions, targets = {}, {}
        for name, target in self.output_targets.items():
            if target["level"] == "system":
                chosen = rows.structures
            else:
                chosen = rows.free if target["eval_on_free_atoms"] else rows.atoms
            prediction = self._denorm_preds(name, out[name], batch)
            predictions[name] = prediction[chosen]
            targets[name] = batch[name].view(len(prediction), -1)[chosen]
        return metric_errors(
            evaluator, Fields(predictions, batch, rows), Fields(targets, batch, rows)
        )

    def _aggregate_metrics(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """The metrics of all ranks together. fairchem adds up name by name and in float32; a rank
        without a batch has no names."""
        if distutils.get_world_size() == 1:
            return super()._aggregate_metrics(metrics)
        ranks: list[Any] = [None] * distutils.get_world_size()
        torch.distributed.all_gather_object(ranks, metrics)
        together: dict[str, Any] = {}
        for name in dict.fromkeys(name for rank in ranks for name in rank):
            total, numel = (
                sum(rank[name][part] for rank in ranks if name in rank)
                for part in ("total", "numel")
            )
            together[name] = {"metric": total / numel, "total": total, "numel": numel}
        return together
