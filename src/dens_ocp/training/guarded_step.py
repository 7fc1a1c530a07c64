"""Training steps that never put a non-finite gradient into the weights."""

from __future__ import annotations

import copy
import logging
import math
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils

from dens_ocp.errors import DensError
from dens_ocp.patched import swapped
from dens_ocp.training import non_finite
from dens_ocp.training.evaluation import EvaluatingTrainer
from dens_ocp.training.non_finite import NonFinite


class _StepNotTaken(Exception):
    """Leaves fairchem's ``_backward`` before the optimizer's step."""


class GuardedTrainer(EvaluatingTrainer):
    """Before each step of the optimizer all ranks agree that loss and gradient are finite.

    If they are not, the step is not taken on any rank, the records are named, their batch is
    saved in ``<results_dir>/non_finite``, and ``optim.non_finite`` says how it goes on: ``stop``
    raises, ``skip`` takes the next batch. (fairchem takes the step: after one non-finite gradient
    all weights are NaN.) Under AMP, steps whose scaled gradient alone overflows are the scaler's
    business: it leaves them out itself while it looks for its scale.
    """

    _batch: Any = None  # of the step, as it was loaded
    _seen: Any = None  # and as the model saw it
    _loss: torch.Tensor | None = None  # of the step, before AMP scales it
    _metrics_before: dict[str, Any] | None = None
    _bad_in_a_row = 0
    _scaler_skips_in_a_row = 0

    def load(self, inference_only: bool) -> None:
        self._on_non_finite = non_finite.action_of(self.config["optim"])
        super().load(inference_only)

    def _forward(self, batch: Any) -> dict[str, torch.Tensor]:
        if self.model.training:
            self._note_batch(batch)
            metrics = getattr(self, "metrics", None) or {}
            self._metrics_before = {name: dict(each) for name, each in metrics.items()}
        return super()._forward(batch)

    def _note_batch(self, batch: Any) -> None:
        """Keep the batch of a step as it is now, the first time it is seen."""
        if self._seen is not batch:
            self._batch, self._seen = copy.copy(batch), batch

    def _backward(self, loss: torch.Tensor) -> None:
        """fairchem's; leaves out the step if it is not finite.

        Args:
            loss: a scalar; under AMP times the scale, which alone can overflow.

        Raises:
            DensError: it is not, and ``optim.non_finite`` is ``stop``; or it has not been for too
                many steps in a row.
        """
        scaled, loss = loss, self._loss if self.scaler and self._loss is not None else loss
        norms: list[torch.Tensor] = []
        found: list[NonFinite] = []

        def clip(*args: Any, **options: Any) -> torch.Tensor:
            norms.append(_clip_grad_norm(*args, **options))
            return norms[-1]

        def before_step(*_: Any) -> None:
            if not norms:  # nothing is clipped, so nobody has computed it
                clip(self.model.parameters(), math.inf)
            bad = non_finite.detect(loss, norms[-1])
            if bad and not bad.loss and self._scaler_skips():
                raise _StepNotTaken
            found.append(bad)
            if bad:
                raise _StepNotTaken

        hook = self.optimizer.register_step_pre_hook(before_step)
        try:
            with swapped(torch.nn.utils, "clip_grad_norm_", clip):
                super()._backward(scaled)
        except _StepNotTaken:
            if self.scaler:
                for name in _SCALERS_NOTES:
                    vars(self.optimizer).pop(name, None)
                self.scaler.update()
        finally:
            hook.remove()
        if not found:  # AMP's scaler has left the step out
            self._scaler_skips_in_a_row += 1
            still_bad = self._scaler_skips_in_a_row > non_finite.MOST_SCALER_SKIPS
            norm = torch.full_like(loss.detach(), math.nan) if still_bad else None
            found.append(non_finite.detect(loss, norm))
        else:
            self._scaler_skips_in_a_row = 0
        if found[-1]:
            self._step_was_bad(found[-1], loss)
        else:
            self._bad_in_a_row = 0

    def _scaler_skips(self) -> bool:
        """AMP's scaler has found an overflow, and leaves what follows to the optimizer.

        It does so with optimizers that look for the overflow themselves (``fused=True``); others it
        does not call then.
        """
        if not self.scaler or not getattr(self.optimizer, "_step_supports_amp_scaling", False):
            return False
        overflows = self.scaler._found_inf_per_device(self.optimizer)
        return any(bool(each) for each in overflows.values())

    def _step_was_bad(self, found: NonFinite, loss: torch.Tensor) -> None:
        self._bad_in_a_row += 1
        self.metrics = self._metrics_before or {}  # a NaN would stay until the next print
        said = non_finite.describe(self.step, found, self._batch, self.model.named_parameters())
        if not self.is_debug:
            folder = Path(self.config["cmd"]["results_dir"]) / "non_finite"
            if found.here or not found.loss:
                try:
                    non_finite.save(folder, self.step, self._batch, self._seen, loss, found)
                except OSError as error:  # the other ranks wait for this one
                    logging.warning("%s: the batch was not saved: %s", folder, error.strerror)
            said += f"; the batches are in {folder}"
        in_a_row = self._bad_in_a_row > non_finite.MOST_IN_A_ROW
        if self._on_non_finite == "skip" and not in_a_row:
            if distutils.is_master():
                logging.warning("%s; skipped on all ranks (optim.non_finite: skip)", said)
            return
        checkpoint = f"non_finite_step_{self.step}.pt"
        path = self.save(checkpoint_file=checkpoint, training_state=True)
        if path is not None:
            said += f", the weights before the step in {path}"
        elif not self.is_debug:
            said += f", the weights before the step in {checkpoint} beside the checkpoints"
        raise DensError(
            f"{said}. No weight was changed. "
            + (
                f"{self._bad_in_a_row} steps in a row were skipped, so weights or data are broken; "
                "go on from an earlier checkpoint with a lower optim.lr_initial"
                if in_a_row
                else "If the records are sound, lower optim.lr_initial or optim.clip_grad_norm; "
                "optim.non_finite: skip leaves such batches out"
            )
        )


_SCALERS_NOTES = ("grad_scale", "found_inf")  # attributes of the optimizer during its step
_clip_grad_norm = torch.nn.utils.clip_grad_norm_
