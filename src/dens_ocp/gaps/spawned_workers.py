"""Data workers that are spawned import what a pickled data set names, fairchem's ``Subset`` first.

With the gaps of this folder they have to import this package before. It can go with the gaps.
"""

from __future__ import annotations

import copyreg
from types import ModuleType
from typing import Any


def _restored(cls: type, state: dict[str, Any]) -> Any:
    dataset = cls.__new__(cls)
    dataset.__dict__.update(state)
    return dataset


def _reduce(dataset: Any) -> tuple[Any, ...]:
    return _restored, (type(dataset), dataset.__dict__)


def after(module: ModuleType) -> None:
    """Let a pickle of ``Subset`` name a function of ours before fairchem's class."""
    copyreg.pickle(module.Subset, _reduce)
