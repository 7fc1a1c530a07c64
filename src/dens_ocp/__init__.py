"""DeNS (denoising non-equilibrium structures) for fairchem/OCP.

With the package imported, fairchem finds the trainer ``dens`` (= ``denoising_forces``), the models
``equiformer_v2_dens``, ``escn_dens``, ``esen_dens`` and ``equiformer_dens``, and the data sets
``dens_lmdb`` and ``dens_ase_db``.

For programs of your own there are :func:`corrupt`, :func:`loss`, :func:`load`, :class:`DeNSConfig`
and :mod:`dens_ocp.models` (docs/python.md). torch and fairchem are imported when one of them is
used first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from dens_ocp.registration import prepare

if TYPE_CHECKING:
    from dens_ocp import models
    from dens_ocp.data.corrupted import corrupt
    from dens_ocp.dens.config import DeNSConfig
    from dens_ocp.dens.loss import loss
    from dens_ocp.relaxation.calculator import load

__version__ = "0.1.0"
__all__ = ["DeNSConfig", "corrupt", "load", "loss", "models"]

prepare()

_PLACES = {
    "corrupt": "dens_ocp.data.corrupted",
    "load": "dens_ocp.relaxation.calculator",
    "loss": "dens_ocp.dens.loss",
    "DeNSConfig": "dens_ocp.dens.config",
}


def __getattr__(name: str) -> Any:
    if name == "models":
        return importlib.import_module("dens_ocp.models")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES, "models"])
