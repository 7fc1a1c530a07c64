"""The trainer: fairchem's EquiformerV2 trainer, with DeNS between batch and model.

``trainer: dens`` (or ``denoising_forces``, the authors' name, or the dotted path
``dens_ocp.trainer.DeNSTrainer``, which plain fairchem finds without being told of this package).
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils
from fairchem.core.models.equiformer_v2.trainers.forces_trainer import EquiformerV2ForcesTrainer
from fairchem.core.modules.exponential_moving_average import ExponentialMovingAverage

from dens_ocp.batch import Corruption, attach, carries_corruption, read
from dens_ocp.config import DeNSConfig, parse_dens_config
from dens_ocp.corruption.corrupt import corrupt, step_generator
from dens_ocp.datasets.checks import (
    LabelCheckingCollater,
    check_dataset_paths,
    check_first_record,
)
from dens_ocp.errors import DensError
from dens_ocp.host import checkpoint_files, defaults, schedule, timestamps, wandb_login
from dens_ocp.loss import NoiseTarget, force_and_noise_loss, target_loss
from dens_ocp.metrics import dens_metrics, evaluator_of_systems, select_structures
from dens_ocp.models import checkpoint_states
from dens_ocp.models.dens_model import DeNSModel

DOTTED_NAME = "dens_ocp.trainer.DeNSTrainer"


class DeNSTrainer(EquiformerV2ForcesTrainer):
    """Trains energies and forces with DeNS; everything else is fairchem's.

    Options of DeNS stand in ``optim.dens`` (:class:`~dens_ocp.config.DeNSConfig`) or in the
    authors' keys of ``optim``. Arguments are those of fairchem's ``OCPTrainer``.

    Raises:
        DensError: a mistake in config, data or checkpoint, before work is lost.
    """

    dens: DeNSConfig

    # ---- set-up ----------------------------------------------------------------------------

    @staticmethod
    def _get_timestamp(device: torch.device, suffix: str | None) -> str:
        return timestamps.unique_timestamp(device, suffix)

    def load(self, inference_only: bool) -> None:
        self.train_loader = None
        self._saved_step = self._validated_step = None
        options = parse_dens_config(self.config["optim"])
        if options is None:
            if self.config["dataset"].get("src") and not inference_only:
                raise DensError(
                    "the trainer is dens, but the config has no optim.dens block; add for example "
                    "dens: {p: 0.5, r: 0.5, sigma: 0.1, coefficient: 10}, or enabled: false to "
                    "train without DeNS"
                )
            options = DeNSConfig(enabled=False)
        self.dens = options
        if not self.is_debug:
            wandb_login.check(self.config["logger"])
        super().load(inference_only)

    def load_task(self) -> None:
        # OCPCalculator looks the trainer up by the name in the checkpoint
        self.config["trainer"] = DOTTED_NAME
        self.config["evaluation_metrics"] = defaults.evaluation_metrics(
            self.config.get("evaluation_metrics"), self.config["outputs"]
        )
        super().load_task()
        for target in self.output_targets.values():
            if target.get("level") == "atom":
                target.setdefault("train_on_free_atoms", True)
                target.setdefault("eval_on_free_atoms", True)
        if self.dens.active and "forces" not in self.output_targets:
            raise DensError(
                "outputs: DeNS predicts noise in place of forces, and the config has no output "
                "`forces`; add forces: {level: atom, train_on_free_atoms: True, "
                "eval_on_free_atoms: True}"
            )

    def load_model(self) -> None:
        super().load_model()
        if self.dens.enabled and not isinstance(self._unwrapped_model, DeNSModel):
            raise DensError(
                f"model.name: {self.config['model']['name']} has no noise head and no force "
                "encoding, so DeNS cannot train it; use equiformer_v2_dens or escn_dens, or set "
                "optim.dens.enabled: false"
            )

    def load_datasets(self) -> None:
        for name in ("dataset", "val_dataset", "test_dataset", "relax_dataset"):
            section = self.config[name]
            option = "dataset." + ("train" if name == "dataset" else name.split("_")[0])
            if section.get("src"):
                inherits = section.get("use_train_settings", True) and name != "dataset"
                base = self.config["dataset"] if inherits else {}
                check_dataset_paths({**base, **section}, option)
        # fairchem's collater asks the config, not the model, whether graphs are built on the fly,
        # and warns at every batch if in doubt
        self.config["model"].setdefault(
            "otf_graph", getattr(self._unwrapped_model, "otf_graph", True)
        )
        super().load_datasets()
        if self.train_dataset is not None:
            check_first_record(self.train_dataset, self._labels(), "dataset.train")

    def get_dataloader(self, dataset: Any, sampler: Any, workers: int | None = None) -> Any:
        plain = self.collater
        if dataset is self.train_dataset or dataset is self.val_dataset:
            name = "dataset.train" if dataset is self.train_dataset else "dataset.val"
            self.collater = LabelCheckingCollater(plain, self._labels(), name)
        self.config["optim"].setdefault("num_workers", 0)
        try:
            return super().get_dataloader(dataset, sampler, workers)
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

    def load_references_and_normalizers(self) -> None:
        super().load_references_and_normalizers()
        if self.dens.active and self.train_loader is not None and "forces" not in self.normalizers:
            raise DensError(
                "dataset.train.transforms.normalizer.forces is missing: DeNS weighs noise in units "
                "of sigma against normalised forces; give mean: 0.0 and stdev: (the standard "
                "deviation of the forces in eV/Angstrom), or let fairchem fit it"
            )

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
        optim["scheduler_params"] = schedule.with_a_warmup_step(in_epochs, len(self.train_loader))
        super().load_extras()
        # fairchem turned epochs into steps in place; checkpoints keep what the user wrote
        optim["scheduler_params"] = in_epochs

    # ---- a training step -------------------------------------------------------------------

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        if not self.model.training or not isinstance(self._unwrapped_model, DeNSModel):
            return super()._forward(batch)
        if self.dens.active:
            attach(batch, self._corruption_of(batch))
        with self._noise_among_outputs():
            return super()._forward(batch)

    def _corruption_of(self, batch: Any) -> Corruption:
        """Algorithm 1, lines 7 to 22, for the current step. The batch is still on the CPU."""
        rank = gp_utils.get_dp_rank() if gp_utils.initialized() else distutils.get_rank()
        return corrupt(
            pos=batch.pos,
            forces=batch.forces,
            fixed=batch.fixed,
            batch=batch.batch,
            natoms=batch.natoms,
            md=batch.get("md", None),
            config=self.dens,
            generator=step_generator(self.config["cmd"]["seed"] or 0, rank, self.step),
        )

    @contextmanager
    def _noise_among_outputs(self) -> Iterator[None]:
        """fairchem's ``_forward`` hands on the model outputs that are output targets."""
        targets = self.output_targets
        self.output_targets = {**targets, "noise": {"level": "atom"}}
        try:
            yield
        finally:
            self.output_targets = targets

    def _noise_target(self) -> NoiseTarget:
        total_steps = 0
        if self.train_loader is not None:
            total_steps = len(self.train_loader) * self.config["optim"].get("max_epochs", 0)
        return NoiseTarget(
            self.dens.noise_scale, self.dens.coefficient_at(self.step, total_steps)
        )

    def _compute_loss(self, out: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
        self._loss_terms = {}
        for name, info in self.loss_functions:
            loss_fn, coefficient = info["fn"], info["coefficient"]
            if name == "forces":
                self._loss_terms |= force_and_noise_loss(
                    loss_fn,
                    coefficient,
                    forces=out["forces"],
                    force_target=self._normalised("forces", batch.forces, batch),
                    noise=out.get("noise"),
                    corruption=read(batch),
                    counted=self._counted(name, "train_on_free_atoms", batch),
                    natoms=batch.natoms,
                    noise_target=self._noise_target(),
                )
                continue
            target = batch[name].view(out[name].shape[0], -1)
            target = self._normalised(name, target, batch)
            prediction, weight = out[name], None
            if self.output_targets[name]["level"] == "atom":
                counted = self._counted(name, "train_on_free_atoms", batch)
                prediction, target = prediction[counted], target[counted]
            elif name == "energy" and not self._energy_in_dens() and carries_corruption(batch):
                weight = ~read(batch).structure_mask
            self._loss_terms[name] = target_loss(
                loss_fn,
                coefficient,
                prediction=prediction,
                target=target,
                natoms=batch.natoms,
                weight=weight,
            )
        return sum(self._loss_terms.values())

    def _energy_in_dens(self) -> bool:
        return self.dens.energy and getattr(self._unwrapped_model, "use_denoising_energy", True)

    def _counted(self, target: str, option: str, batch: Any) -> torch.Tensor:
        """(N,) bool: atoms that enter loss or metrics: free ones, and corrupted ones."""
        if not self.output_targets[target][option]:
            return torch.ones_like(batch.fixed, dtype=torch.bool)
        return (batch.fixed == 0) | read(batch).noise_mask

    def _normalised(self, name: str, target: torch.Tensor, batch: Any) -> torch.Tensor:
        if name in self.elementrefs:
            target = self.elementrefs[name].dereference(target, batch)
        return self.normalizers[name].norm(target) if name in self.normalizers else target

    def _compute_metrics(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any, metrics: Any = None
    ) -> dict[str, Any]:
        metrics = {} if metrics is None else metrics
        if self.model.training:
            for name, term in getattr(self, "_loss_terms", {}).items():
                metrics = evaluator.update(f"loss_{name}", term.item(), metrics)
        out = {name: value.detach() for name, value in out.items()}
        noise = out.pop("noise", None)
        corruption = read(batch)
        if noise is not None and self.dens.active:
            for name, statistic in self._dens_metrics(out, noise, batch, corruption).items():
                metrics = evaluator.update(name, statistic, metrics)
        if corruption.structure_mask.any():
            batch, out = select_structures(batch, out, ~corruption.structure_mask)
        if batch.natoms.numel() == 0:
            return metrics
        if not bool((batch.fixed == 0).any()):
            evaluator = evaluator_of_systems(evaluator, self.output_targets)
        return super()._compute_metrics(out, batch, evaluator, metrics)

    def _dens_metrics(
        self, out: dict[str, torch.Tensor], noise: torch.Tensor, batch: Any, corruption: Corruption
    ) -> dict[str, dict[str, float]]:
        energy = out.get("energy", batch.energy.view(-1, 1))
        return dens_metrics(
            energy=self._denorm_preds("energy", energy, batch),
            energy_target=batch.energy.view(-1, 1),
            forces=self._denorm_preds("forces", out["forces"], batch),
            force_target=batch.forces,
            noise=noise * self.dens.noise_scale,
            corruption=corruption,
            counted=self._counted("forces", "eval_on_free_atoms", batch),
            batch=batch.batch,
        )

    # ---- a run -----------------------------------------------------------------------------

    def train(self, disable_eval_tqdm: bool = False) -> None:
        """fairchem's loop; then what it leaves undone: the last validation and checkpoint."""
        if self.dens.enabled and not self.dens.active:
            logging.warning("optim.dens: p or r is 0, so no structure will be corrupted")
        max_steps = len(self.train_loader) * self.config["optim"]["max_epochs"]
        if self.step >= max_steps:
            logging.warning(
                "Nothing to train: the checkpoint is at step %d and optim.max_epochs: %s ends at "
                "step %d",
                self.step,
                self.config["optim"]["max_epochs"],
                max_steps,
            )
            return
        super().train(disable_eval_tqdm)
        if self.val_loader is not None and self._validated_step != self.step:
            val_metrics = self.validate(split="val", disable_tqdm=disable_eval_tqdm)
            primary_metric = self.primary_metric or self.evaluation_metrics["primary_metric"]
            self.update_best(primary_metric, val_metrics, disable_eval_tqdm=disable_eval_tqdm)
        if self._saved_step != self.step:
            self.save(checkpoint_file="checkpoint.pt", training_state=True)

    def validate(self, split: str = "val", disable_tqdm: bool = False) -> dict[str, Any]:
        if split == "val":
            self._validated_step = self.step
        return super().validate(split, disable_tqdm)

    # ---- checkpoints -----------------------------------------------------------------------

    def save(
        self,
        metrics: Any = None,
        checkpoint_file: str = "checkpoint.pt",
        training_state: bool = True,
    ) -> str | None:
        if training_state:
            self._saved_step = self.step
        temporary = super().save(metrics, f".{checkpoint_file}.{os.getpid()}", training_state)
        if temporary is None:
            return None
        final = Path(temporary).with_name(checkpoint_file)
        checkpoint_files.replace(temporary, final)
        return str(final)

    def load_checkpoint(
        self,
        checkpoint_path: str,
        checkpoint: dict[str, Any] | None = None,
        inference_only: bool = False,
    ) -> None:
        """Load a checkpoint of ours, the authors' or fairchem's.

        In evaluation the averaged weights (EMA), if there are any, are put into the model. In
        training a checkpoint without DeNS parameters is a start for fine-tuning: weights only.

        Raises:
            DensError: no such file, damaged, or of another architecture.
        """
        if checkpoint is None:
            logging.info("Loading checkpoint from: %s", checkpoint_path)
            map_location = torch.device("cpu") if self.cpu else self.device
            checkpoint = checkpoint_files.read(checkpoint_path, map_location)
        checkpoint = {"normalizers": {}, "amp": None, **checkpoint}
        evaluation = inference_only or self.train_loader is None
        model = self._unwrapped_model
        if isinstance(model, DeNSModel):
            state = checkpoint_states.fit(model, checkpoint["state_dict"], checkpoint_path)
            if state.initialised:
                logging.warning(
                    "%s has no DeNS parameters; %s; initialised: %s",
                    checkpoint_path,
                    "they are not needed for evaluation"
                    if evaluation
                    else "it is the start of fine-tuning with DeNS, at step 0",
                    ", ".join(sorted({name.split(".")[0] for name in state.initialised})),
                )
            if evaluation or state.initialised:
                state = checkpoint_states.averaged(model, state, checkpoint.get("ema"))
            checkpoint["state_dict"] = state.state_dict
            if state.initialised:
                for entry in ("epoch", "step", "best_val_metric", "primary_metric", "optimizer",
                              "scheduler", "ema"):
                    checkpoint.pop(entry, None)
        if evaluation:
            checkpoint.pop("ema", None)
        ema = self.ema
        super().load_checkpoint(checkpoint_path, checkpoint, inference_only=evaluation)
        if evaluation:
            return
        if self.ema is None and ema is not None:
            # fairchem drops the average for good here
            self.ema = ExponentialMovingAverage(self.model.parameters(), self.ema_decay)
        if "scheduler" in checkpoint and self.scheduler.scheduler_type != "Null":
            schedule.catch_up(self.scheduler.scheduler, self.step)
