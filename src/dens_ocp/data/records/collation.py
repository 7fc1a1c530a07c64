"""Records -> batch; records that cannot be in one batch are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch_geometric.data import Batch, Data

from dens_ocp.data.records.record_checks import described
from dens_ocp.data.records.record_ids import name_of
from dens_ocp.errors import DensError


class CheckingCollater:
    """A collater that says which records do not go together. Can be pickled.

    PyG takes the attributes of the first record: one that another lacks is a ``KeyError``, one that
    only another has is left out of the batch without a word.

    Args:
        collater: list of records -> batch, fairchem's for example.
        where: the config section, for messages: ``dataset.train``.
        periodic: the model builds periodic graphs, which are periodic in the same directions for a
            whole batch. A record without ``pbc`` is periodic in all, as fairchem reads it.

    Calling it raises:
        DensError: attributes that not all records have, or in other shapes or types; records that
            are periodic in different directions. The message names two records.
    """

    def __init__(self, collater: Callable[..., Batch], where: str, periodic: bool = False) -> None:
        self.collater = collater
        self.where = where
        self.periodic = periodic

    def __call__(self, records: list[Data], **options: Any) -> Batch:
        self._check(records)
        try:
            return self.collater(records, **options)
        except DensError:
            raise
        except Exception as error:  # PyG's and torch's, by the kind of value
            raise DensError(self._explained(records, error)) from error

    def _check(self, records: list[Data]) -> None:
        first, attributes = records[0], _attributes(records[0])
        for record in records[1:]:
            if _attributes(record) ^ attributes == {"pbc"}:
                for each in records:
                    if getattr(each, "pbc", None) is None:
                        each.pbc = torch.ones(1, 3, dtype=torch.bool)
                attributes = _attributes(first)
        for record in records[1:]:
            difference = _attributes(record) ^ attributes
            if difference:
                name = min(difference)
                has, lacks = (first, record) if name in attributes else (record, first)
                raise DensError(
                    f"{name_of(lacks, self.where)} has no {name}, but {self._short(has)} has one "
                    f"(it is {described(has[name])}); all records of a data set need the same "
                    "attributes: add it, or remove it from the others"
                )
        if self.periodic and "pbc" in attributes:
            for record in records[1:]:
                if not torch.equal(record.pbc, first.pbc):
                    raise DensError(
                        f"{name_of(record, self.where)} has pbc {record.pbc[0].tolist()}, "
                        f"{self._short(first)} has {first.pbc[0].tolist()}, but a periodic graph "
                        "has one pbc for the whole batch; give all records the same pbc (True, "
                        "with vacuum in directions that are not periodic), or convert them "
                        "separately"
                    )

    def _explained(self, records: list[Data], error: Exception) -> str:
        first = records[0]
        for name in sorted(_attributes(first)):
            for record in records[1:]:
                if _form(record[name]) != _form(first[name]):
                    return (
                        f"{name_of(record, self.where)} and {self._short(first)} cannot be in "
                        f"one batch: {name} is {described(record[name])} and "
                        f"{described(first[name])}; give it the same type and shape in all "
                        "records (except for the first dimension), or remove it"
                    )
        return (
            f"{name_of(first, self.where)} and the {len(records) - 1} other records of its batch "
            f"cannot be joined ({type(error).__name__}: {error}); compare their attributes: "
            f"{', '.join(sorted(_attributes(first)))}"
        )

    def _short(self, record: Data) -> str:
        return name_of(record, self.where).removeprefix(f"{self.where}: ")


def _attributes(record: Data) -> set[str]:
    return {name for name, value in record.to_dict().items() if value is not None}


def _form(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.dim(), value.shape[1:], value.dtype
    return type(value)
