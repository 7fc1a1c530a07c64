"""Training steps that never put a non-finite gradient into the weights."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils
from fairchem.core.trainers.base_trainer import get_weight_table

from dens_ocp.errors import DensError
from dens_ocp.training import non_finite
from dens_ocp.training.metric_errors import Statistic
from dens_ocp.training.non_finite import NonFinite

LAG = 2
"""Steps after which the host looks whether a step was finite, where the device leaves it out by
itself. The device has long been through them, so that nobody waits."""


@dataclass
class Taken:
    """A step that the host has still to look at.

    Attributes:
        step, epoch: of the run. flags: of :func:`non_finite.flags`, on the host once ``ready``.
        loss: scalar. loaded, seen: its batch as it was loaded and as the model saw it.
        counted: what :meth:`Sums.add` returned.
    """

    step: int
    epoch: float
    flags: torch.Tensor
    loss: torch.Tensor
    loaded: Any
    seen: Any
    counted: dict[str, Statistic] = field(default_factory=dict)
    ready: torch.cuda.Event | None = None

    def found(self) -> tuple[NonFinite, bool]:
        """What was not finite, and whether AMP's scaler has found an overflow."""
        if self.ready is not None:
            self.ready.synchronize()
        loss, gradient, here, overflow = (value > 0 for value in self.flags.numpy().tolist())
        return NonFinite(loss, here, gradient), overflow


class GuardedStep:
    """Before each step of the optimizer it is known on all ranks whether it is finite.

    If it is not, the step is not taken on any rank, the records are named, their batch is
    saved in ``<results_dir>/non_finite``, and ``optim.non_finite`` says how it goes on: ``stop``
    raises, ``skip`` takes the next batch. (fairchem takes the step: after one non-finite gradient
    all weights are NaN.) Under AMP, steps whose scaled gradient alone overflows are the scaler's
    business: they are left out while it looks for its scale.

    The host waits for the answer at each step. Only on a GPU with an optimizer that can leave out a
    step by itself (``fused``) it does not: the device decides, after a step that is not finite it
    takes none any more (``stop``), and the host learns of it :data:`LAG` steps later.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.action = non_finite.action_of(trainer.config["optim"])
        able = getattr(trainer.optimizer, "_step_supports_amp_scaling", False)
        self.lag = LAG if able and trainer.device.type == "cuda" else 0
        self._pending: deque[Taken] = deque()
        self._halted: torch.Tensor | None = None
        self._bad_in_a_row = self._scaler_skips_in_a_row = 0

    def take(
        self,
        loss: torch.Tensor,
        loaded: Any,
        seen: Any,
        errors: Mapping[str, torch.Tensor | Statistic],
    ) -> None:
        """Backward, and the optimizer's step if it is finite; add the errors to ``trainer.sums``.

        Args:
            loss: of this rank, a scalar. loaded, seen: its batch as it was loaded and as the model
                saw it. errors: of the batch.

        Raises:
            DensError: a step is not finite, and ``optim.non_finite`` is ``stop``; or too many in a
                row are not.
        """
        trainer, scaler = self.trainer, self.trainer.scaler
        norm = self._gradient(loss)
        overflows = () if scaler is None else scaler._found_inf_per_device(trainer.optimizer)
        overflow = sum(overflows.values()) if overflows else torch.zeros_like(norm)
        flags = non_finite.flags(loss, norm, overflow)
        taken = Taken(trainer.step, trainer.epoch, flags, loss.detach(), loaded, seen)
        if trainer.clip_grad_norm:
            errors = {**errors, "grad_norm": norm}
        if self.lag:
            self._take_on_device(taken, errors)
        else:
            taken.flags = flags.cpu()
            found, overflowed = taken.found()
            if not found and not overflowed:
                self._optimize()
                if trainer.ema:
                    trainer.ema.update()
                trainer.sums.add(errors)
        if scaler is not None:
            scaler.update()
        self._pending.append(taken)
        while len(self._pending) > self.lag:
            self._look(self._pending.popleft())

    def settle(self) -> None:
        """Look at all steps. Every rank calls it at the same step."""
        while self._pending:
            self._look(self._pending.popleft())

    def _gradient(self, loss: torch.Tensor) -> torch.Tensor:
        """Averaged over ranks, unscaled and clipped; its norm, a scalar."""
        trainer = self.trainer
        trainer.optimizer.zero_grad()
        (loss if trainer.scaler is None else trainer.scaler.scale(loss)).backward()
        for parameter, factor in getattr(trainer.model, "shared_parameters", ()):
            if parameter.grad is not None:
                parameter.grad.detach().div_(factor)
        if trainer.scaler is not None:
            trainer.scaler.unscale_(trainer.optimizer)
            self._log_weights()
        return torch.nn.utils.clip_grad_norm_(
            trainer.model.parameters(), trainer.clip_grad_norm or math.inf
        )

    def _log_weights(self) -> None:
        """fairchem's option ``logger.log_weight_table`` (under AMP)."""
        trainer, logger = self.trainer, self.trainer.config["logger"]
        every = logger.get("log_weight_table", -1) if isinstance(logger, dict) else -1
        if trainer.logger is not None and every > 0 and trainer.step % every == 1:
            columns, data = get_weight_table(trainer.model)
            trainer.logger.log_table(name="weight_table", cols=columns, data=data)

    def _optimize(self, skip: torch.Tensor | None = None) -> None:
        """The optimizer's step.

        Args:
            skip: scalar on the device; where it is not 0, a fused optimizer leaves out the step.
        """
        optimizer = self.trainer.optimizer
        if not getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.step()
            return
        # what AMP's scaler tells such optimizers
        optimizer.grad_scale = None
        optimizer.found_inf = torch.zeros((), device=self.trainer.device) if skip is None else skip
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf

    def _take_on_device(self, taken: Taken, errors: Mapping[str, torch.Tensor | Statistic]) -> None:
        trainer = self.trainer
        loss_bad, gradient_bad, _, overflow = taken.flags
        bad = torch.maximum(loss_bad, gradient_bad * (overflow == 0))
        if self._halted is None:
            self._halted = torch.zeros_like(bad)
        skip = torch.stack([bad, gradient_bad, overflow, self._halted]).amax().clamp(max=1.0)
        if self.action == "stop":
            self._halted = torch.maximum(self._halted, bad)
        self._optimize(skip)
        if trainer.ema:
            update_average(trainer.ema, skip)
        taken.counted = trainer.sums.add(errors, skip)
        on_host = torch.empty(taken.flags.shape, pin_memory=taken.flags.is_cuda)
        on_host.copy_(taken.flags, non_blocking=True)
        taken.flags = on_host
        if trainer.device.type == "cuda":
            taken.ready = torch.cuda.Event()
            taken.ready.record()

    def _look(self, taken: Taken) -> None:
        found, overflow = taken.found()
        if found or overflow:
            self.trainer.sums.forget(taken.counted)
        if overflow and not found.loss:  # AMP's scaler looks for its scale
            self._scaler_skips_in_a_row += 1
            if self._scaler_skips_in_a_row <= non_finite.MOST_SCALER_SKIPS:
                return
            found = NonFinite(loss=False, here=False, gradient=True)
        else:
            self._scaler_skips_in_a_row = 0
        if found:
            self._bad_in_a_row += 1
            self._say(found, taken)
        else:
            self._bad_in_a_row = 0

    def _say(self, found: NonFinite, taken: Taken) -> None:
        trainer = self.trainer
        parameters = trainer.model.named_parameters()
        said = non_finite.describe(taken.step, found, taken.loaded, parameters)
        if not trainer.is_debug:
            folder = Path(trainer.config["cmd"]["results_dir"]) / "non_finite"
            if found.here or not found.loss:
                try:
                    non_finite.save(folder, taken.step, taken.loaded, taken.seen, taken.loss, found)
                except OSError as error:  # the other ranks wait for this one
                    logging.warning("%s: the batch was not saved: %s", folder, error.strerror)
            said += f"; the batches are in {folder}"
        in_a_row = self._bad_in_a_row > non_finite.MOST_IN_A_ROW
        if self.action == "skip" and not in_a_row:
            if distutils.is_master():
                logging.warning("%s; skipped on all ranks (optim.non_finite: skip)", said)
            return
        self._pending.clear()
        trainer.step, trainer.epoch = taken.step, taken.epoch  # of the weights as they are
        checkpoint = f"non_finite_step_{taken.step}.pt"
        path = trainer.save(checkpoint_file=checkpoint, training_state=True)
        if path is not None:
            said += f", and the weights before the step are in {path}"
        elif not trainer.is_debug:
            said += f", and the weights before the step are in {checkpoint} next to the checkpoints"
        raise DensError(
            f"{said}. No weight was changed. "
            + (
                f"{self._bad_in_a_row} steps in a row were skipped, so the weights or the data "
                "are broken; resume from an earlier checkpoint with a lower optim.lr_initial"
                if in_a_row
                else "If the records are correct, lower optim.lr_initial or "
                "optim.clip_grad_norm; or set optim.non_finite: skip to leave out such batches"
            )
        )


@torch.no_grad()
def update_average(average: Any, skip: torch.Tensor) -> None:
    """fairchem's ``ExponentialMovingAverage.update``, where ``skip`` (a scalar on the device) is 0.

    Args:
        average: of all parameters, with a fixed decay.
    """
    weight = (1.0 - average.decay) * (1.0 - skip)
    changes = torch._foreach_sub(average._get_parameters(None), average.shadow_params)
    torch._foreach_mul_(changes, weight)
    torch._foreach_add_(average.shadow_params, changes)
