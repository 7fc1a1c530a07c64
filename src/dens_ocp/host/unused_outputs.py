"""Outputs of a model that no loss looks at, kept in the graph of a training step."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch


def zero(outputs: Any, used: Collection[str]) -> torch.Tensor | None:
    """0, with a graph that leads to all outputs without a loss.

    Args:
        outputs: of the model: tensors by name, or by head and name (fairchem's hydra models).
        used: names that have a loss.

    Returns:
        A scalar whose gradients are zero; None where every output has a loss.
    """
    unused = [each for name, each in _named(outputs) if name not in used and each.requires_grad]
    return sum(0.0 * each.sum() for each in unused) if unused else None


def _named(outputs: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(outputs, torch.Tensor):
        yield name, outputs
    elif isinstance(outputs, dict):
        for key, value in outputs.items():
            yield from _named(value, str(key))
