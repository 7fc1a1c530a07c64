"""fairchem's EquiformerV2 trainer with its traps removed; knows nothing of DeNS.

Each override says which trap of fairchem-core 1.10.0 it removes; the work is done by the other
modules of this package.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from fairchem.core.common import distutils

from dens_ocp.datasets.checks import (
    LabelCheckingCollater,
    check_dataset_paths,
    check_first_record,
)
from dens_ocp.datasets.lmdb_environment import reopen_in_each_process
from dens_ocp.datasets.md_flags import without_inherited_md
from dens_ocp.datasets.named_records import name_unreadable_records
from dens_ocp.errors import DensError
from dens_ocp.host import (
    best_metric,
    data_workers,
    defaults,
    oc22_references,
    relaxation_options,
    run_folder,
    schedule,
    timestamps,
    unused_outputs,
    wandb_login,
)
from dens_ocp.host.agreement import on_master
from dens_ocp.host.metric_errors import Fields, MetricRows, Statistic, fetched, metric_errors
from dens_ocp.host.resumable import ResumableTrainer

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

    def __init__(self, *args: Any, **options: Any) -> None:
        if not options.get("is_debug", False):
            wandb_login.check(options.get("logger", "wandb"))
            on_master(partial(run_folder.check_run_dir, options.get("run_dir") or os.getcwd()))
        super().__init__(*args, **options)

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
            if not section.get("key_mapping") and not base.get("key_mapping"):
                section["key_mapping"] = dict(defaults.KEY_MAPPING)
            check_dataset_paths({**base, **section}, f"dataset.{split}")
        # fairchem's collater asks the config, not the model, whether graphs are built on the fly,
        # and warns at every batch if in doubt
        self.config["model"].setdefault(
            "otf_graph", getattr(self._unwrapped_model, "otf_graph", True)
        )
        if self.config["relax_dataset"]:
            relaxation_options.checked(self.config["task"])
            optim = self.config["optim"]
            optim.setdefault("batch_size", optim.get("eval_batch_size", 1))
        super().load_datasets()
        for dataset in (
            self.train_dataset, self.val_dataset, self.test_dataset, self._relax_dataset
        ):  # fmt: skip
            reopen_in_each_process(dataset)
            name_unreadable_records(dataset)
        self._check_records()

    def _check_records(self) -> None:
        """The first record of each data set has what will be asked for."""
        for split, dataset in (
            ("train", self.train_dataset),
            ("val", self.val_dataset),
            ("test", self.test_dataset),
            ("relax", self._relax_dataset),
        ):
            if dataset is None:
                continue
            if split != "train":
                defaults.complete_key_mapping(dataset, f"dataset.{split}")
            check_first_record(
                dataset,
                self._labels() if split == "train" else {},
                f"dataset.{split}",
                atoms=("fixed", "tags") if split == "relax" else ("fixed",),
                cell=bool(getattr(self._unwrapped_model, "use_pbc", False)),
            )

    def get_dataloader(self, dataset: Any, sampler: Any, workers: int | None = None) -> Any:
        plain = self.collater
        if dataset is self.train_dataset or dataset is self.val_dataset:
            name = "dataset.train" if dataset is self.train_dataset else "dataset.val"
            self.collater = LabelCheckingCollater(plain, self._labels(), name)
        self.config["optim"].setdefault("num_workers", 0)
        try:
            loader = super().get_dataloader(dataset, sampler, workers)
            return data_workers.with_start_method(loader, self.config["optim"])
        finally:
            self.collater = plain

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
        if "scheduler_params" not in optim:
            raise DensError(
                "optim.scheduler_params is missing; write for example scheduler: LambdaLR and "
                "scheduler_params: {lambda_type: cosine, warmup_factor: 0.2, warmup_epochs: 0.1, "
                "lr_min_factor: 0.01}"
            )
        in_epochs = copy.deepcopy(optim["scheduler_params"])
        if optim.get("scheduler") == "ReduceLROnPlateau":
            in_epochs = schedule.with_direction(
                in_epochs,
                self.evaluation_metrics["primary_metric"],
                validated=self.val_loader is not None,
            )
        optim["scheduler_params"] = schedule.with_a_warmup_step(in_epochs, len(self.train_loader))
        super().load_extras()
        # fairchem turned epochs into steps in place; checkpoints keep what the user wrote
        optim["scheduler_params"] = in_epochs

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
            unused = unused_outputs.zero(self._model_outputs, used)
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
            elif not len(rows.free):
                continue
            else:
                chosen = rows.free if target["eval_on_free_atoms"] else rows.atoms
            prediction = self._denorm_preds(name, out[name], batch)
            predictions[name] = prediction[chosen]
            targets[name] = batch[name].view(len(prediction), -1)[chosen]
        if not len(rows.free):
            evaluator = copy.copy(evaluator)
            evaluator.target_metrics = {
                name: functions
                for name, functions in evaluator.target_metrics.items()
                if name in targets
            }
        return metric_errors(
            evaluator, Fields(predictions, batch, rows), Fields(targets, batch, rows)
        )

    def _aggregate_metrics(self, metrics: dict[str, Any]) -> dict[str, Any]:
        """fairchem's; it adds up over ranks name by name, so all ranks need the same names."""
        if distutils.get_world_size() > 1:
            names: list[Any] = [None] * distutils.get_world_size()
            torch.distributed.all_gather_object(names, list(metrics))
            nothing = {"metric": None, "total": 0.0, "numel": 0}
            everywhere = dict.fromkeys(name for rank in names for name in rank)
            metrics = {name: metrics.get(name, nothing) for name in everywhere}
        return super()._aggregate_metrics(metrics)
