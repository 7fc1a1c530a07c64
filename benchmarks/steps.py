"""A training step and a prediction, by the real trainer's own methods."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from fairchem.core.models.equiformer_v2.trainers.dens_trainer import (
    DenoisingForcesTrainer,
    add_gaussian_noise_to_position,
)

from benchmarks.cases import Case
from benchmarks.clock import Clock
from benchmarks.variants import Variant, make_trainer
from dens_ocp.patched import swapped

PHASES = ("corruption", "forward", "loss", "metrics", "backward", "optimizer")
"""``forward`` is the model's and what surrounds it; ``optimizer`` has clipping and EMA."""

_MOST_STEPS = 1000


class Runner:
    """One variant on one batch.

    Every step sees the same batch and the same corruption, of which a part of the structures is
    touched (if there are two or more) and no random number depends on what ran before.

    Attributes:
        trainer: fairchem's or ours.
        variant: which.
        autocast: the dtype of autocast, without a scaler of the loss; None: what the trainer does,
            float16 with a scaler if it was made with ``amp``, else nothing.
        loss: of the last step, a scalar.
    """

    autocast: torch.dtype | None = None
    loss: torch.Tensor

    def __init__(
        self,
        variant: Variant,
        case: Case,
        data: Path,
        run_dir: Path,
        device: torch.device,
        amp: bool = False,
    ) -> None:
        self.variant, self.device = variant, device
        self.trainer = make_trainer(variant, case, data, run_dir, device, amp)
        self._batch = next(iter(self.trainer.train_loader))
        self.trainer.step, self.trainer.metrics = 1, {}
        if variant.ours:
            self.trainer.step = self._mixed_step()

    def _mixed_step(self) -> int:
        """A training step of which the dice corrupt some structures, not all."""
        for step in range(1, _MOST_STEPS):
            self.trainer.step = step
            touched = int(self.trainer._corruption_of(self._batch).structure_mask.sum())
            half = max(1, self._batch.natoms.numel() // 2)
            if touched == half:
                return step
        raise RuntimeError("no step corrupts half of the structures")

    def batch(self) -> Any:
        """A fresh copy on the CPU, as the loader hands it on."""
        return copy.copy(self._batch).clone()

    def learn_at(self, rate: float) -> None:
        """Give the optimizer another learning rate than the schedule's first one."""
        for group in self.trainer.optimizer.param_groups:
            group["lr"] = rate

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return torch.autocast("cuda", enabled=self.trainer.scaler is not None)
        if self.variant.ours:  # the trainer's own autocast, inside, is the one that counts
            return swapped(self.trainer, "half", self.autocast)
        return torch.autocast(self.device.type, dtype=self.autocast)

    def step(self, clock: Clock | None = None) -> Clock:
        """What fairchem's ``train`` does for a batch, without logging and checkpoints.

        Args:
            clock: gets the seconds of phases; None: a new one.
        """
        trainer, clock = self.trainer, clock or Clock(self.device)
        batch = self.batch()
        trainer.model.train()
        torch.manual_seed(0)
        if isinstance(trainer, DenoisingForcesTrainer):
            # fairchem tosses the coin for the whole batch; here it always says DeNS
            with clock.phase("corruption"):
                batch = add_gaussian_noise_to_position(batch, std=0.1, corrupt_ratio=0.5)
        if self.variant.ours:
            return self._own_step(batch, clock)
        with self._autocast():
            with clock.phase("forward"):
                outputs = trainer._forward(batch)
            with clock.phase("loss"):
                loss = trainer._compute_loss(outputs, batch)
        with clock.phase("metrics"):
            metrics = trainer._compute_metrics(outputs, batch, trainer.evaluator, trainer.metrics)
            trainer.metrics = trainer.evaluator.update("loss", loss.item(), metrics)
        self.loss = loss.detach()
        loss = trainer.scaler.scale(loss) if trainer.scaler else loss
        loss.backward = clock.timed("backward", loss.backward)
        with clock.phase("optimizer"):
            trainer._backward(loss)
        return clock

    def _own_step(self, batch: Any, clock: Clock) -> Clock:
        """What :mod:`dens_ocp.training.loop` does for a batch."""
        trainer, loaded = self.trainer, copy.copy(batch)
        # an attribute of the instance hides the method
        plan = type(trainer).step_plan.__get__(trainer)
        trainer.step_plan = clock.timed("corruption", plan)
        with self._autocast():
            with clock.phase("forward"):
                outputs = trainer._forward(batch)
            with clock.phase("loss"):
                terms = trainer.loss_terms(outputs, batch)
                loss = trainer.whole_loss(terms)
        with clock.phase("metrics"):
            errors = trainer.step_errors(outputs, batch, terms, loss)
        self.loss = loss.detach()
        loss.backward = clock.timed("backward", loss.backward)
        with clock.phase("optimizer"):
            trainer.guard.take(loss, loaded, batch, errors)
        return clock

    def answers(self) -> dict[str, torch.Tensor]:
        """What a step of ours computes, without a change of weights.

        Returns:
            On the CPU in float32: ``energy`` (B, 1), ``forces`` and ``noise`` (N, 3), normalised,
            and ``gradient`` (P,) of the loss with respect to all parameters.
        """
        trainer, batch = self.trainer, self.batch()
        trainer.model.train()
        trainer.optimizer.zero_grad()
        torch.manual_seed(0)
        with self._autocast():
            outputs = trainer._forward(batch)
            loss = trainer.whole_loss(trainer.loss_terms(outputs, batch))
        loss.backward()
        gradients = [
            torch.zeros_like(each) if each.grad is None else each.grad
            for each in trainer.model.parameters()
        ]
        trainer.optimizer.zero_grad()
        found = {**outputs, "gradient": torch.cat([each.flatten() for each in gradients])}
        return {name: each.detach().float().cpu() for name, each in found.items()}

    @torch.no_grad()
    def predict(self, free_only: bool = False, clock: Clock | None = None) -> Clock:
        """Energies and forces of the batch, as in ``predict`` of the trainer.

        Args:
            free_only: only forces of free atoms are asked for, as for a prediction file; fairchem
                computes all the same.
            clock: gets the seconds; None: a new one.
        """
        trainer, clock, batch = self.trainer, clock or Clock(self.device), self.batch()
        trainer.model.eval()
        with clock.phase("predict"), self._autocast():
            if self.variant.ours:
                with swapped(trainer, "_free_atoms_suffice", free_only):
                    outputs = trainer._forward(batch)
            else:
                outputs = trainer._forward(batch)
            for name in ("energy", "forces"):
                trainer._denorm_preds(name, outputs[name], batch)
        return clock

    def counts(self) -> dict[str, float]:
        """Structures, atoms, free atoms, edges; atoms that were corrupted by a step of ours."""
        batch = self.batch()
        found = {
            "structures": batch.natoms.numel(),
            "atoms": batch.pos.shape[0],
            "free": int((batch.fixed == 0).sum()),
        }
        if self.variant.ours:
            found["corrupted"] = int(self.trainer._corruption_of(batch).noise_mask.sum())
            graph = self.trainer._unwrapped_model.generate_graph(batch.to(self.device))
            edges = graph["edge_index"] if isinstance(graph, dict) else graph.edge_index
            found["edges"] = edges.shape[1]
        return found

    def parameters(self) -> int:
        return sum(each.numel() for each in self.trainer.model.parameters())
