"""Predictions, validations and relaxations with NaN or infinite numbers: how many, and which."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from fairchem.core.common import distutils

from dens_ocp.data.records.record_ids import names_of
from dens_ocp.errors import DensError

_SHOWN = 5


@dataclass
class Unusable:
    """Structures with results that are not finite, of this rank.

    Attributes:
        where: the config section, for messages. total: structures so far. names: of the unusable
            ones.
    """

    where: str
    total: int = 0
    names: list[str] = field(default_factory=list)

    def add(self, names: Iterable[str], bad: Iterable[bool]) -> None:
        """Some structures: their names, and whether their results are not finite."""
        for name, is_bad in zip(names, bad, strict=True):
            self.total += 1
            if is_bad:
                self.names.append(name)

    def look(self, outputs: Mapping[str, torch.Tensor], batch: Any, targets: Any) -> None:
        """The outputs of a batch, (N, ...) or (B, ...) by the ``level`` of ``targets``."""
        bad = torch.zeros(batch.natoms.numel(), dtype=torch.bool, device=batch.natoms.device)
        for name, value in outputs.items():
            rows = ~torch.isfinite(value).flatten(1).all(1)
            atoms = targets[name]["level"] == "atom"
            bad |= in_structures(rows, batch) if atoms else rows
        marks = bad.tolist()
        # names are asked of the device one by one, where there is something to name
        self.add(names_of(batch) if any(marks) else [""] * len(marks), marks)

    def look_at_predictions(self, predictions: Mapping[str, Any]) -> None:
        """What fairchem's ``predict`` is about to write: lists with an entry for each id."""
        values = [
            entries for name, entries in predictions.items()
            if name != "ids" and not name.endswith("chunk_idx")
        ]  # fmt: skip
        bad = [
            not all(np.isfinite(each).all() for each in row) for row in zip(*values, strict=True)
        ]
        self.add(predictions["ids"], bad)

    def report(
        self, parameters: Iterable[tuple[str, torch.Tensor]], fatal: bool, hint: str = ""
    ) -> None:
        """Say of all ranks what was found. A meeting of all ranks.

        Args:
            parameters: of the model, for the reason.
            fatal: raise if nothing is usable.
            hint: what else may be the reason.

        Raises:
            DensError: no structure has finite results.
        """
        ranks: list[Any] = [(self.total, self.names)]
        if distutils.get_world_size() > 1:
            ranks = [None] * distutils.get_world_size()
            torch.distributed.all_gather_object(ranks, (self.total, self.names))
        total = sum(count for count, _ in ranks)
        names = sorted({name for _, some in ranks for name in some})
        if not names:
            return
        count = sum(len(some) for _, some in ranks)
        broken = [name for name, each in parameters if not bool(torch.isfinite(each).all())]
        reason = (
            f"; {len(broken)} parameters are not finite, the first is {broken[0]}"
            if broken
            else hint
        )
        text = (
            f"{self.where}: the results of {count} of {total} structures are NaN or infinite, "
            f"for example {', '.join(names[:_SHOWN])}{reason}"
        )
        if fatal and count == total:
            raise DensError(f"{text}; none is usable: check the checkpoint and the data")
        if distutils.is_master():
            logging.warning("%s", text)


def in_structures(atoms: torch.Tensor, batch: Any) -> torch.Tensor:
    """(B,) bool: whether any atom of the structure is set in ``atoms`` (N,) bool."""
    count = torch.zeros_like(batch.natoms, dtype=torch.long)
    return count.index_add_(0, batch.batch, atoms.long()) > 0


def marked(
    outputs: Mapping[str, torch.Tensor], batch: Any, targets: Any
) -> dict[str, torch.Tensor]:
    """Outputs that are NaN for structures whose positions are not finite.

    An atom at NaN has no edge, so a model gives it the energy of a lone atom and no force: finite
    numbers of no structure.

    Args:
        outputs: (N, ...) or (B, ...) by the ``level`` of ``targets``.
        batch: of B structures and N atoms.
    """
    bad = in_structures(~torch.isfinite(batch.pos).all(1), batch)
    result = {}
    for name, value in outputs.items():
        rows = bad[batch.batch] if targets[name]["level"] == "atom" else bad
        rows = rows.view(-1, *[1] * (value.dim() - 1))
        result[name] = torch.where(rows, value.new_full((), float("nan")), value)
    return result
