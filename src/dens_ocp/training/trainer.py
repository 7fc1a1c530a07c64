"""The trainer: fairchem's, with DeNS between batch and model.

``trainer: dens`` (or ``denoising_forces``, the authors' name, or the dotted path
``dens_ocp.trainer.DeNSTrainer``, which plain fairchem finds without being told of this package).
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from fairchem.core.common import distutils, gp_utils

from dens_ocp.auto.resolve import force_coefficient, resolve
from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from dens_ocp.dens.corruption import corruption_of, step_generator
from dens_ocp.dens.loss import NoiseTarget, force_and_noise_loss, target_loss
from dens_ocp.dens.metrics import dens_energy_errors, dens_errors, dens_rows
from dens_ocp.dens.step_plan import (
    Corruption,
    MetricRows,
    StepPlan,
    attach,
    carries_corruption,
    read,
    read_plan,
    refuse_corrupted,
    rows_of,
)  # fmt: skip
from dens_ocp.errors import DensError
from dens_ocp.launch.agreement import on_master
from dens_ocp.models import authors_contract, checkpoint_states, gradient_forces
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.patched import swapped
from dens_ocp.training import preconditions
from dens_ocp.training.checkpoints.saving import TRAINING_STATE
from dens_ocp.training.fairchem_trainer import HostTrainer
from dens_ocp.training.losses import total
from dens_ocp.training.metric_errors import Statistic

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
            authors_contract.adopt_if_followed(self._unwrapped_model)
            ours = isinstance(self._unwrapped_model, DenoisingModel)
            preconditions.check_model(self.config["model"]["name"], self._can_denoise, ours)

    @property
    def _can_denoise(self) -> bool:
        model = self._unwrapped_model
        return isinstance(model, DenoisingModel) and model.can_denoise

    @property
    def _gradient_forces(self) -> bool:
        return getattr(self._unwrapped_model, "gradient_forces", False)

    def _share_scale(self) -> None:
        if self._gradient_forces:
            gradient_forces.share_scale(self.normalizers, self.output_targets)

    def load_references_and_normalizers(self) -> None:
        super().load_references_and_normalizers()
        self._share_scale()
        if self.dens.active and self.train_loader is not None:
            preconditions.check_normalizers(self.normalizers, self._gradient_forces)
        if self.dens.auto and self.dens.active and self.train_loader is not None:
            self._auto = self.dens
            self._pick_dens(self._auto)

    def load_checkpoint(self, *args: Any, **options: Any) -> None:
        """The host's; what was derived from the config's normalizers follows the checkpoint's."""
        super().load_checkpoint(*args, **options)
        self._share_scale()
        if self._auto is not None and self._force_scale != self._scale_of_picks:
            logging.info(
                "optim.dens: auto picks the options again, for the checkpoint's scale of the forces"
            )
            self._pick_dens(self._auto)

    @property
    def _force_scale(self) -> float:
        """What forces are divided by, eV/Angstrom."""
        return float(getattr(self.normalizers.get("forces"), "rmsd", 1.0))

    def _pick_dens(self, auto: DeNSConfig) -> None:
        """``dens: auto``: rank 0 looks at the training set; all ranks, config and checkpoints get
        its numbers."""
        self._scale_of_picks = self._force_scale
        look = partial(
            resolve,
            auto,
            self.train_dataset,
            force_coefficient=force_coefficient(self.config["loss_functions"]),
            force_scale=self._force_scale,
            gradient_forces=self._gradient_forces,
        )
        self.dens, picks = on_master(look, self.device)
        self.config["optim"]["dens"] = self.dens.model_dump()
        for name, value in picks.options.items():
            logging.info("optim.dens.%s: auto picked %s: %s", name, value, picks.reasons[name])

    # ---- a training step -------------------------------------------------------------------

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        """The outputs of a batch; in training it gets the plan of its step."""
        if not self.model.training:
            refuse_corrupted(batch, "its energies and forces are those of noisy structures")
            if self._can_denoise and self._free_atoms_suffice:
                attach(batch, StepPlan(force_atoms=batch.fixed == 0))
            return super()._forward(batch)
        if not self._can_denoise:
            return super()._forward(batch)
        attach(batch, self.step_plan(batch))
        outputs = super()._forward(batch)
        if self.dens.choice == "structure":
            preconditions.check_energies(self._unwrapped_model.left_out_of_batches)
        if "noise" not in outputs:  # no output target of the config's
            outputs["noise"] = self._model_outputs["noise"]
        return outputs

    def step_plan(self, batch: Any) -> StepPlan:
        """Algorithm 1, lines 7 to 22, for the current step, and the rows that loss and metrics look
        at. The batch is still on the CPU."""
        active = self.dens.active_at(self.step, len(self.train_loader))
        corruption = self._corruption_of(batch) if active else None
        if "forces" not in self.output_targets:
            return StepPlan(corruption)
        nothing = torch.zeros_like(batch.fixed, dtype=torch.bool)
        noisy = nothing if corruption is None else corruption.noise_mask
        # fixed atoms that are masked without moving do not count (``encode: masked``)
        free = batch.fixed == 0
        free = free | noisy if self.dens.all_atoms else free
        forces = self.output_targets["forces"]
        trained = free if forces["train_on_free_atoms"] else ~nothing
        measured = free if forces["eval_on_free_atoms"] else ~nothing
        scored = trained | measured
        clean = None if corruption is None else ~corruption.structure_mask
        return StepPlan(
            corruption,
            force_atoms=scored & ~noisy,
            noise_atoms=scored & noisy,
            loss_rows=rows_of(free),
            metric_rows=MetricRows.of(batch, clean),
            dens_rows={} if corruption is None else dens_rows(corruption, measured, batch.batch),
        )

    def _corruption_of(self, batch: Any) -> Corruption:
        rank = gp_utils.get_dp_rank() if gp_utils.initialized() else distutils.get_rank()
        return corruption_of(batch, self.dens, step_generator(self.seed, rank, self.step))

    def _noise_target(self) -> NoiseTarget:
        total_steps = 0 if self.train_loader is None else self.last_step
        return NoiseTarget.at(self.dens, self.step, total_steps)

    def _compute_loss(self, out: dict[str, torch.Tensor], batch: Any) -> torch.Tensor:
        terms = self.loss_terms(out, batch)
        return self.whole_loss(terms) if self.model.training else total(terms.values())

    def loss_terms(self, out: dict[str, torch.Tensor], batch: Any) -> dict[str, torch.Tensor]:
        """The weighted terms of the loss, Eq. 6: scalars by target, and ``noise``."""
        plan, corruption = self._with_rows(batch), read(batch)
        terms: dict[str, torch.Tensor] = {}
        for name, info in self.loss_functions:
            loss_fn, coefficient = info["fn"], info["coefficient"]
            target = batch[name].view(out[name].shape[0], -1)
            target = self._normalised(name, target, batch)
            options = self.output_targets[name]
            counted: Any = plan.loss_rows if options.get("train_on_free_atoms") else slice(None)
            if name == "forces":
                terms |= force_and_noise_loss(
                    loss_fn,
                    coefficient,
                    forces=out["forces"],
                    force_target=target,
                    noise=out.get("noise"),
                    corruption=corruption,
                    counted=counted,
                    natoms=batch.natoms,
                    noise_target=self._noise_target(),
                )
                continue
            prediction, weight = out[name], None
            if options["level"] == "atom":
                prediction, target = prediction[counted], target[counted]
            elif self.model.training and carries_corruption(batch):
                weight = self._weight_in_dens(name, corruption)
            terms[name] = target_loss(
                loss_fn,
                coefficient,
                prediction=prediction,
                target=target,
                natoms=batch.natoms,
                weight=weight,
            )
        return terms

    def _weight_in_dens(self, name: str, corruption: Corruption) -> torch.Tensor | None:
        """(B,) bool, structures on which a target of structures has a loss; None: all."""
        model, whole = self._unwrapped_model, self.output_targets[name].get("parent", name)
        if whole not in ("energy", "stress"):
            return None
        if whole in model.left_out_of_batches:
            return torch.zeros_like(corruption.structure_mask)
        trained = getattr(self.dens, whole) and getattr(model, f"use_denoising_{whole}")
        return None if trained else ~corruption.structure_mask

    def _with_rows(self, batch: Any) -> StepPlan:
        """The plan of a batch. Where it has no rows yet (validation, and models without DeNS), they
        are those of its free atoms, for which the device is waited for."""
        plan = read_plan(batch)
        if plan.metric_rows is None:
            rows = rows_of(batch.fixed == 0)
            plan = replace(plan, loss_rows=rows, metric_rows=MetricRows.of(batch))
            batch.step_plan = plan
        return plan

    def _normalised(self, name: str, target: torch.Tensor, batch: Any) -> torch.Tensor:
        if name in self.elementrefs:
            target = self.elementrefs[name].dereference(target, batch)
        return self.normalizers[name].norm(target) if name in self.normalizers else target

    def step_errors(
        self,
        out: dict[str, torch.Tensor],
        batch: Any,
        terms: dict[str, torch.Tensor],
        loss: torch.Tensor,
        evaluator: Any = None,
    ) -> dict[str, torch.Tensor | Statistic]:
        """What is logged of a batch: metrics, terms of the loss in training, and the loss."""
        shown = terms if self.model.training else {}
        return {
            **{f"loss_{name}": each.detach() for name, each in shown.items()},
            **self._errors(out, batch, evaluator or self.evaluator),
            "loss": loss.detach(),
        }

    def _errors(
        self, out: dict[str, torch.Tensor], batch: Any, evaluator: Any
    ) -> dict[str, torch.Tensor | Statistic]:
        """Errors of DeNS structures, and fairchem's metrics of the others."""
        out = {name: value.detach() for name, value in out.items()}
        plan, noise = self._with_rows(batch), out.get("noise")
        assert plan.metric_rows is not None
        errors: dict[str, torch.Tensor | Statistic] = {}
        if noise is not None and plan.corruption is not None:
            if "energy" in out:
                energy = self._denorm_preds("energy", out["energy"], batch)
                errors |= dens_energy_errors(energy, batch.energy.view(-1, 1), plan.dens_rows)
            errors |= dens_errors(
                num_structures=batch.natoms.numel(),
                forces=self._denorm_preds("forces", out["forces"], batch),
                force_target=batch.forces,
                noise=noise * self.dens.noise_scale,
                noise_target=plan.corruption.noise_vec,
                rows=plan.dens_rows,
            )
        return errors | self._errors_of(out, batch, evaluator, plan.metric_rows)

    # ---- a run -----------------------------------------------------------------------------

    def validate(self, split: str = "val", disable_tqdm: bool = False) -> dict[str, Any]:
        """fairchem's; forces of fixed atoms are computed only where a metric or loss wants them."""
        forces = self.output_targets.get("forces", {})
        suffice = forces.get("train_on_free_atoms") and forces.get("eval_on_free_atoms")
        with swapped(self, "_free_atoms_suffice", bool(suffice)):
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
        with swapped(self, "_free_atoms_suffice", per_image):
            return super().predict(data_loader, per_image, results_file, disable_tqdm)

    def train(self, disable_eval_tqdm: bool = False) -> None:
        if self.dens.enabled and not self.dens.active:
            logging.warning("optim.dens: p or r is 0, so no structure will be corrupted")
        logging.info("DeNS: %s", self.dens.in_words)
        super().train(disable_eval_tqdm)

    def fitted_checkpoint(
        self, checkpoint: dict[str, Any], path: str, evaluation: bool
    ) -> dict[str, Any]:
        """Bring a checkpoint of ours, the authors' or fairchem's into the model's form."""
        model = self._unwrapped_model
        if not isinstance(model, DenoisingModel):
            return checkpoint
        own = self.config["model"]
        return checkpoint_states.fitted(model, checkpoint, path, evaluation, TRAINING_STATE, own)
