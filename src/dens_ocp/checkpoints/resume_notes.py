"""What a checkpoint says about the run that wrote it, so that a resume can say what differs."""

from __future__ import annotations

from typing import Any

import torch

from dens_ocp.errors import DensError

_NAMES = {
    "ranks": "ranks",
    "graph_parallel": "--gp-gpus",
    "batch_size": "optim.batch_size",
    "seed": "--seed",
    "steps_per_epoch": "steps per epoch",
}
"""Entries of ``checkpoint["resume"]`` that are compared. ``validated_step``, ``relaxed_step`` (the
last that were) and ``metrics`` (running means since they were last printed) stand there too."""


def steps_per_epoch(checkpoint: dict[str, Any]) -> int | None:
    """Steps of an epoch in the run that wrote a checkpoint, fairchem's too; None if not known."""
    step, epoch = checkpoint.get("step"), checkpoint.get("epoch")
    return round(step / epoch) if step and epoch else None


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """One phrase for each setting that is not what it was.

    >>> differences({"ranks": 2, "seed": 0}, {"ranks": 1, "seed": 0})
    ['ranks: 2, now 1']
    """
    return [
        f"{name}: {then[key]}, now {now[key]}"
        for key, name in _NAMES.items()
        if then.get(key) is not None and then[key] != now[key]
    ]


def consequences(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What follows from :func:`differences` for the rest of the run."""
    text = "corruption, dropout and edge frames use other random numbers"
    if then.get("steps_per_epoch") not in (None, now["steps_per_epoch"]):
        text += (
            "; data and learning rate continue at the same epoch (records of this epoch may be "
            "used twice or not at all)"
        )
    sizes = [_global_batch(each) for each in (then, now)]
    if None not in sizes and sizes[0] != sizes[1]:
        text += f"; structures per step: {sizes[0]}, now {sizes[1]}, with the same optim.lr_initial"
    return text


def _global_batch(notes: dict[str, Any]) -> int | None:
    if notes.get("ranks") is None or notes.get("batch_size") is None:
        return None
    return notes["ranks"] // (notes.get("graph_parallel") or 1) * notes["batch_size"]


def check_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], path: str) -> None:
    """Make sure that an optimizer's state (``state_dict``) in ``path`` is of the same parameters.

    Raises:
        DensError: other groups: weight decay was 0 then and is not now, or was for others.
    """
    groups = {"then": state.get("param_groups", []), "now": optimizer.param_groups}
    then, now = ([len(each["params"]) for each in groups[when]] for when in ("then", "now"))
    if then == now:
        return
    raise DensError(
        f"{path}: its optimizer has groups of {then} parameters without and with weight decay, "
        f"but the optimizer of this config has groups of {now}; set "
        "optim.optimizer_params.weight_decay to its old value. If this does not help, the "
        "version that wrote the checkpoint decayed other parameters: start from the "
        "best_checkpoint.pt next to it, which holds only weights"
    )
