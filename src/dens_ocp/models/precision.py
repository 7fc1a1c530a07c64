"""Mixed precision (``--amp``): autocast of a forward, and what is in float32 all the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""``optim.amp_dtype`` -> dtype of autocast."""


def half_of(config: Mapping[str, Any], cpu: bool) -> torch.dtype | None:
    """The dtype of a trainer's autocast; None: float32. float16 is of GPUs, as in fairchem.

    Args:
        config: of a trainer, with ``amp`` and ``optim``.
    """
    if not config["amp"]:
        return None
    half = HALF[config["optim"].get("amp_dtype", "float16")]
    return None if cpu and half is torch.float16 else half


def in_float32(outputs: Any) -> Any:
    """Outputs of a model, also nested ones (of heads), without half precision: losses, references
    and metrics are not rounded."""
    if isinstance(outputs, dict):
        return {name: in_float32(each) for name, each in outputs.items()}
    half = isinstance(outputs, torch.Tensor) and outputs.dtype in HALF.values()
    return outputs.float() if half else outputs


def output_in_float32(_module: torch.nn.Module, _inputs: Any, output: Any) -> Any:
    """A forward hook: what the module gives, without half precision."""
    return in_float32(output)


def energies_in_float32(_module: torch.nn.Module, _inputs: Any, output: Any) -> None:
    """A forward hook of fairchem's EquiformerV2 energy block: the energy is a sum over atoms in the
    dtype of its terms, (N, 1, 1) ``output.embedding``; not in that of autocast."""
    energies = output.embedding
    output.embedding = energies.to(torch.promote_types(energies.dtype, torch.float32))
