"""The trainer: fairchem's, with DeNS between batch and model.

``trainer: dens`` (or ``denoising_forces``, the authors' name, or the dotted path
``dens_ocp.trainer.DeNSTrainer``, which plain fairchem finds without being told of this package).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils

from dens_ocp.auto.resolve import force_coefficient, resolve
from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from dens_ocp.dens.corruption.corrupt import corrupt, step_generator
from dens_ocp.dens.loss import NoiseTarget, force_and_noise_loss, target_loss
from dens_ocp.dens.metrics import dens_energy_errors, dens_errors, dens_rows
from dens_ocp.dens.step_plan import (
    Corruption,
    attach,
    attach_rows,
    attach_scored,
    carries_corruption,
    read,
    read_rows,
    refuse_corrupted,
)
from dens_ocp.errors import DensError
from dens_ocp.launch.agreement import on_master
from dens_ocp.models import checkpoint_states, gradient_forces
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.training import preconditions
from dens_ocp.training.checkpointing import TRAINING_STATE
from dens_ocp.training.fairchem_trainer import HostTrainer
from dens_ocp.training.metric_errors import MetricRows, Statistic

DOTTED_NAME = "dens_ocp.trainer.DeNSTrainer"


class DeNSTrainer(HostTrainer):
    """Trains energies and forces with DeNS; everything else is fairchem's.

    Options of DeNS stand in ``optim.dens`` (:class:`~dens_ocp.dens.config.DeNSConfig`) or in the
    authors' keys of ``optim``. Arguments are those of fairchem's ``OCPTrainer``.

    Raises:
        DensError: a mistake in config, data or checkpoint, before work is lost.
    """

    trainer_name = DOTTED_NAME
    dens: DeNSConfig
    _auto: DeNSConfig | None = None  # before its options were picked
    _free_atoms_suffice = False

    # ---- set-up ----------------------------------------------------------------------------

    def load(self, inference_only: bool) -> None:
        options = parse_dens_config(self.config["optim"])
        if options is None:
            if self.config["dataset"].get("src") and not inference_only:
                raise DensError(preconditions.NO_BLOCK)
            options = DeNSConfig(enabled=False)
        self.dens = options
        super().load(inference_only)

    def load_task(self) -> None:
        super().load_task()
        if self.dens.active:
            losses = {name for loss in self.config["loss_functions"] for name in loss}
            preconditions.check_targets(self.output_targets, losses)

    def load_model(self) -> None:
        super().load_model()
        if self.dens.enabled:
            ours = isinstance(self._unwrapped_model, DenoisingModel)
            preconditions.check_model(self.config["model"]["name"], self._can_denoise, ours)

    @property
    def _can_denoise(self) -> bool:
        model = self._unwrapped_model
        return isinstance(model, DenoisingModel) and model.can_denoise

    @property
    def _gradient_forces(self) -> bool:
        return getattr(self._unwrapped_model, "gradient_forces", False)

    def load_references_and_normalizers(self) -> None:
        super().load_references_and_normalizers()
        if self._gradient_forces:
            gradient_forces.share_scale(self.normalizers)
        if self.dens.active and self.train_loader is not None:
            preconditions.check_normalizers(self.normalizers, self._gradient_forces)
        if self.dens.auto and self.dens.active and self.train_loader is not None:
            self._auto = self.dens
            self._pick_dens()

    def load_checkpoint(self, *args: Any, **options: Any) -> None:
        """The host's; what was derived from the config's normalizers follows the checkpoint's."""
        super().load_checkpoint(*args, **options)
        if self._gradient_forces:
            gradient_forces.share_scale(self.normalizers)
        if self._auto is not None and self._force_scale != self._scale_of_picks:
            logging.info("optim.dens: auto picks again, for the checkpoint's scale of forces")
            self._pick_dens()

    @property
    def _force_scale(self) -> float:
        """What forces are divided by, eV/Angstrom."""
        return float(getattr(self.normalizers.get("forces"), "rmsd", 1.0))

    def _pick_dens(self) -> None:
        """``dens: auto``: rank 0 looks at the training set; all ranks, config and checkpoints get
        its numbers."""
        self._scale_of_picks = self._force_scale
        self.dens, picks = on_master(
            partial(
                resolve,
                self._auto,
                self.train_dataset,
                force_coefficient=force_coefficient(self.config["loss_functions"]),
                force_scale=self._force_scale,
                gradient_forces=self._gradient_forces,
            ),
            self.device,
        )
        self.config["optim"]["dens"] = self.dens.model_dump()
        for name, value in picks.options.items():
            logging.info("optim.dens.%s: auto picked %s: %s", name, value, picks.reasons[name])

    # ---- a training step -------------------------------------------------------------------

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        if not self.model.training:
            refuse_corrupted(batch, "its energies and forces are those of noisy structures")
        if not self._can_denoise:
            return super()._forward(batch)
        if not self.model.training:
            if self._free_atoms_suffice:
                attach_scored(batch, batch.fixed == 0)
            return super()._forward(batch)
        if self.dens.active:
            self._note_batch(batch)
            attach(batch, self._corruption_of(batch))
        if "forces" in self.output_targets:
            attach_scored(batch, self._scored(batch))
            attach_rows(batch, self._rows_of(batch))
        # fairchem hands on the model outputs that are output targets
        with self.with_output_targets({**self.output_targets, "noise": {"level": "atom"}}):
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

    def _noise_target(self) -> NoiseTarget:
        total_steps = 0 if self.train_loader is None else self._last_step
        return NoiseTarget(
            self.dens.noise_scale,
            self.dens.coefficient_at(self.step, total_steps),
            separate=self.dens.denominator == "separate",
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
                    counted=self._counted_rows(name, batch),
                    natoms=batch.natoms,
                    noise_target=self._noise_target(),
                )
                continue
            target = batch[name].view(out[name].shape[0], -1)
            target = self._normalised(name, target, batch)
            prediction, weight = out[name], None
            if self.output_targets[name]["level"] == "atom":
                counted = self._counted_rows(name, batch)
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
        return self._whole_loss(sum(self._loss_terms.values()))

    def _energy_in_dens(self) -> bool:
        return self.dens.energy and getattr(self._unwrapped_model, "use_denoising_energy", True)

    def _counted(self, target: str, option: str, batch: Any) -> torch.Tensor:
        """(N,) bool: atoms that enter loss or metrics: free ones, and fixed ones that moved."""
        if not self.output_targets[target][option]:
            return torch.ones_like(batch.fixed, dtype=torch.bool)
        return self._free_or_moved(batch)

    def _free_or_moved(self, batch: Any) -> torch.Tensor:
        # fixed atoms that are masked without moving do not count (``encode: masked``)
        free = batch.fixed == 0
        return free | read(batch).noise_mask if self.dens.all_atoms else free

    def _rows_of(self, batch: Any) -> dict[str, torch.Tensor]:
        """Rows that loss and metrics of a training step look at. The batch is still on the CPU."""
        corruption = read(batch)
        rows = MetricRows.of(batch, ~corruption.structure_mask).as_dict()
        rows["counted"] = torch.nonzero(self._free_or_moved(batch))[:, 0]
        counted = self._counted("forces", "eval_on_free_atoms", batch)
        return rows | dens_rows(corruption, counted, batch.batch)

    def _rows(self, batch: Any) -> dict[str, torch.Tensor]:
        rows = read_rows(batch) if self.model.training else None
        return self._rows_of(batch) if rows is None else rows

    def _counted_rows(self, target: str, batch: Any) -> torch.Tensor | slice:
        """Rows of the atoms that enter the loss."""
        if not self.output_targets[target]["train_on_free_atoms"]:
            return slice(None)
        return self._rows(batch)["counted"]

    def _scored(self, batch: Any) -> torch.Tensor:
        """(N,) bool: atoms whose force or noise loss or metrics of training look at."""
        return self._counted("forces", "train_on_free_atoms", batch) | self._counted(
            "forces", "eval_on_free_atoms", batch
        )

    def _normalised(self, name: str, target: torch.Tensor, batch: Any) -> torch.Tensor:
        if name in self.elementrefs:
            target = self.elementrefs[name].dereference(target, batch)
        return self.normalizers[name].norm(target) if name in self.normalizers else target

    def _errors(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any
    ) -> dict[str, torch.Tensor | Statistic]:
        """The terms of the loss; errors of DeNS structures; fairchem's metrics of the others."""
        if "forces" not in self.output_targets:
            return self._loss_errors() | super()._errors(out, batch, evaluator)
        rows = self._rows(batch)
        noise = out.get("noise")
        errors = self._loss_errors()
        if noise is not None and self.dens.active:
            energy = out.get("energy")
            if energy is not None:
                errors |= dens_energy_errors(
                    self._denorm_preds("energy", energy, batch), batch.energy.view(-1, 1), rows
                )
            errors |= dens_errors(
                num_structures=batch.natoms.numel(),
                forces=self._denorm_preds("forces", out["forces"], batch),
                force_target=batch.forces,
                noise=noise * self.dens.noise_scale,
                noise_target=read(batch).noise_vec,
                rows=rows,
            )
        clean = MetricRows(**{each.name: rows[each.name] for each in fields(MetricRows)})
        return errors | self._errors_of(out, batch, evaluator, clean)

    def _loss_errors(self) -> dict[str, torch.Tensor]:
        terms = getattr(self, "_loss_terms", {}) if self.model.training else {}
        return {f"loss_{name}": term for name, term in terms.items()}

    # ---- a run -----------------------------------------------------------------------------

    @contextmanager
    def _free_atoms_only(self, suffice: bool) -> Iterator[None]:
        """Forces in evaluation are computed for free atoms, if they suffice."""
        self._free_atoms_suffice, before = suffice, self._free_atoms_suffice
        try:
            yield
        finally:
            self._free_atoms_suffice = before

    def validate(self, split: str = "val", disable_tqdm: bool = False) -> dict[str, Any]:
        """fairchem's; forces of fixed atoms are computed only where a metric or loss wants them."""
        forces = self.output_targets.get("forces", {})
        suffice = forces.get("train_on_free_atoms") and forces.get("eval_on_free_atoms")
        with self._free_atoms_only(bool(suffice)):
            return super().validate(split, disable_tqdm)

    def predict(
        self,
        data_loader: Any,
        per_image: bool = True,
        results_file: str | None = None,
        disable_tqdm: bool = False,
    ) -> Any:
        """fairchem's; a prediction file (``per_image``) has the forces of free atoms, so only these
        are computed. A calculator gets all."""
        with self._free_atoms_only(per_image):
            return super().predict(data_loader, per_image, results_file, disable_tqdm)

    def train(self, disable_eval_tqdm: bool = False) -> None:
        if self.dens.enabled and not self.dens.active:
            logging.warning("optim.dens: p or r is 0, so no structure will be corrupted")
        super().train(disable_eval_tqdm)

    def fitted_checkpoint(
        self, checkpoint: dict[str, Any], path: str, evaluation: bool
    ) -> dict[str, Any]:
        """Bring a checkpoint of ours, the authors' or fairchem's into the model's form.

        In training a checkpoint without DeNS parameters is a start for fine-tuning: its (averaged)
        weights, at step 0.
        """
        model = self._unwrapped_model
        if not isinstance(model, DenoisingModel):
            return checkpoint
        state = checkpoint_states.fit(model, checkpoint["state_dict"], path)
        if not state.initialised:
            if not evaluation:
                checkpoint_states.warn_of_another_scale(model, checkpoint, path)
            return {**checkpoint, "state_dict": state.state_dict}
        logging.warning(
            "%s has no DeNS parameters; %s; initialised: %s",
            path,
            "they are not needed for evaluation"
            if evaluation
            else "it is the start of fine-tuning with DeNS, at step 0",
            ", ".join(sorted({name.split(".")[0] for name in state.initialised})),
        )
        state = checkpoint_states.averaged(model, state, checkpoint.get("ema"))
        kept = {name: value for name, value in checkpoint.items() if name not in TRAINING_STATE}
        return {**kept, "state_dict": state.state_dict}
