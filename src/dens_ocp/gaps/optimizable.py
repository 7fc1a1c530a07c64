"""Methods of ``ase.optimize.optimize.Optimizable`` that fairchem's ``OptimizableBatch`` lacks.

ASE 3.26 made ``get_x``, ``set_x``, ``get_gradient``, ``get_value`` and ``ndofs`` abstract, so that
no batch can be relaxed. It can go when ASE below 3.26 is all that is supported, or fairchem-core
defines them (2.0 does).
"""

from __future__ import annotations

import abc
from types import ModuleType
from typing import Any


def ndofs(self: Any) -> int:
    """Positions times three."""
    return 3 * len(self)


def get_x(self: Any) -> Any:
    """Positions (3 N,)."""
    return self.get_positions().ravel()


def set_x(self: Any, x: Any) -> None:
    """Positions (3 N,)."""
    self.set_positions(x.reshape(-1, 3))


def get_gradient(self: Any) -> Any:
    """Minus the forces (3 N,)."""
    return -self.get_forces().ravel()


def get_value(self: Any) -> Any:
    """The energy."""
    return self.get_potential_energy()


def after(module: ModuleType) -> None:
    """Give ``OptimizableBatch`` the methods that are abstract."""
    for name in getattr(module.OptimizableBatch, "__abstractmethods__", ()):
        setattr(module.OptimizableBatch, name, globals()[name])
    for each in (module.OptimizableBatch, module.OptimizableUnitCellBatch):
        abc.update_abstractmethods(each)
