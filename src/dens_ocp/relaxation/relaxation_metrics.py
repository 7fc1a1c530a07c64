"""IS2RE and IS2RS metrics of relaxations."""

from __future__ import annotations

from typing import Any

import torch
from fairchem.core.modules.evaluator import Evaluator


class RelaxationEvaluator(Evaluator):
    """fairchem's evaluator, with energies of one shape.

    ``run_relaxations`` compares the model's energies (B, 1) with labels (B,)
    (``trainers/ocp_trainer.py:643``); their difference is (B, B), so each metric compares every
    system with every label, and depends on the batch size.

    Args:
        task: ``is2re`` or ``is2rs``. kept: gets the metrics so far under ``task``.
    """

    def __init__(self, kept: dict[str, Any], task: str) -> None:
        super().__init__(task=task)
        self.kept = kept

    def eval(
        self,
        prediction: dict[str, torch.Tensor],
        target: dict[str, torch.Tensor],
        prev_metrics: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        metrics = super().eval(_one_column(prediction), _one_column(target), prev_metrics)
        self.kept[self.task] = metrics
        return metrics


def _one_column(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**values, "energy": values["energy"].view(-1)}
