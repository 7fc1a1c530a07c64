"""Checkpoints compared to the last bit."""

from pathlib import Path
from typing import Any

import torch


def checkpoint(folder: Path, run: str, name: str = "checkpoint.pt") -> dict[str, Any]:
    """What is in a checkpoint of a run but ``config``, which has the run's name."""
    content = torch.load(folder / "checkpoints" / run / name, weights_only=False)
    content.pop("config")
    return content


def difference(one: Any, other: Any, where: str = "") -> str | None:
    """The first place where two nested states differ in a bit, or None."""
    if isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and torch.equal(one, other)
        return None if same else where
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{where}: {set(one) ^ set(other)}"
        found = (difference(one[key], other[key], f"{where}/{key}") for key in one)
        return next(filter(None, found), None)
    if isinstance(one, (list, tuple)):
        if len(one) != len(other):
            return f"{where}: {len(one)} {len(other)} entries"
        pairs = enumerate(zip(one, other, strict=True))
        return next(filter(None, (difference(*both, f"{where}/{i}") for i, both in pairs)), None)
    return None if one == other else f"{where}: {one!r} {other!r}"
