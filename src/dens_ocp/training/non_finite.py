"""Batches whose loss or gradient is not finite: which records, and a file to look at them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils

from dens_ocp.data.records.record_ids import names_of
from dens_ocp.errors import DensError, nearest

OPTION = "non_finite"
ACTIONS = ("stop", "skip")

MOST_IN_A_ROW = 10
"""With ``skip``: more steps than this in a row end the run; weights or data are broken."""

MOST_SCALER_SKIPS = 40
"""AMP halves its scale after a step with an infinite gradient. From its start, 2^16, so many steps
in a row lead to 2^-24, which no warm-up needs."""


def action_of(optim: dict[str, Any]) -> str:
    """``optim.non_finite``, by default ``stop``.

    Raises:
        DensError: neither ``stop`` nor ``skip``.
    """
    action = optim.get(OPTION, ACTIONS[0])
    if action not in ACTIONS:
        raise DensError(
            f"optim.{OPTION}: {action!r} is neither stop nor skip{nearest(str(action), ACTIONS)}"
        )
    return action


@dataclass(frozen=True)
class NonFinite:
    """What happened at a step.

    Attributes:
        loss: some rank's loss is not finite.
        here: this rank's is.
        gradient: the gradient (of all ranks, averaged) is not finite.
    """

    loss: bool
    here: bool
    gradient: bool

    def __bool__(self) -> bool:
        return self.loss or self.gradient


def flags(loss: torch.Tensor, gradient_norm: torch.Tensor, overflow: torch.Tensor) -> torch.Tensor:
    """What is not finite, (4,) float32 on the device, 0 or more: the loss of any rank, the averaged
    gradient, this rank's loss; and whether AMP's scaler has found an overflow. No wait.

    Args:
        loss: this rank's, a scalar. gradient_norm: of the averaged gradient, a scalar. overflow:
            scalar, above 0 where there is one.
    """
    bad = ~torch.isfinite(torch.stack([loss.detach().float(), gradient_norm.to(loss).float()]))
    counts = torch.cat([bad, bad[:1]]).float()
    if distutils.get_world_size() > 1:
        distutils.all_reduce(counts[:2])
    return torch.cat([counts, overflow.to(counts).view(1)])


def describe(step: int, found: NonFinite, batch: Any, parameters: Any) -> str:
    """One sentence, the same on every rank: step, what, ranks and records.

    A meeting of all ranks. The gradient is averaged over ranks before it can be looked at, so if
    only the gradient is not finite, the records of all ranks are named.

    Args:
        step: of the run.
        found: :func:`detect`'s answer.
        batch: this rank's.
        parameters: named parameters of the model.
    """
    mine = names_of(batch) if found.here or not found.loss else None
    ranks: list[Any] = [mine]
    if distutils.get_world_size() > 1:
        ranks = [None] * distutils.get_world_size()
        torch.distributed.all_gather_object(ranks, mine)
    records = "; ".join(
        f"rank {rank}: {', '.join(names)}" for rank, names in enumerate(ranks) if names is not None
    )
    what = "loss" if found.loss else "gradient"
    broken = [name for name, each in parameters if not bool(torch.isfinite(each).all())]
    weights = (
        f"; {len(broken)} parameters were not finite before the step, the first is {broken[0]}"
        if broken
        else ""
    )
    return f"step {step}: the {what} is not finite (records of {records}){weights}"


def save(
    folder: Path, step: int, batch: Any, seen: Any, loss: torch.Tensor, found: NonFinite
) -> Path:
    """Write this rank's batch to ``<folder>/step_<step>_rank_<rank>.pt``.

    The file holds tensors and plain values only: ``batch`` (fields of the PyG batch as it was
    loaded; ``Batch(**content["batch"])`` makes one again), ``seen`` (fields of the batch that the
    model saw where they differ: the positions and the corruption of DeNS), ``records``, ``loss``,
    ``step``, ``rank``, and what was not finite.
    """
    rank = distutils.get_rank()
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{step}_rank_{rank}.pt"
    temporary = folder / f".{final.name}.{os.getpid()}"
    loaded = batch.to("cpu").to_dict()
    content = {
        "step": step,
        "rank": rank,
        "records": names_of(batch),
        "loss": float(loss.detach()),
        "loss_is_finite": not found.here,
        "gradient_is_finite": not found.gradient,
        "batch": loaded,
        "seen": {
            name: value
            for name, value in seen.to("cpu").to_dict().items()
            if name != "step_plan"  # the corruption has fields of its own
            and (
                name not in loaded
                or (isinstance(value, torch.Tensor) and not torch.equal(value, loaded[name]))
            )
        },
    }
    torch.save(content, temporary)
    os.replace(temporary, final)
    return final
