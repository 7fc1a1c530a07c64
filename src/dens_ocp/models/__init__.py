"""Models with force encoding and a noise head.

``EquiformerV2DeNS``, ``eSCNDeNS``, ``eSENDeNS`` and ``EquiformerDeNS`` are built with the options
of a config's ``model`` section as keyword arguments. They are imported when they are used first.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dens_ocp.models.equiformer.model import EquiformerDeNS
    from dens_ocp.models.equiformer_v2 import EquiformerV2DeNS
    from dens_ocp.models.escn import eSCNDeNS
    from dens_ocp.models.esen import eSENDeNS

__all__ = ["EquiformerDeNS", "EquiformerV2DeNS", "eSCNDeNS", "eSENDeNS"]

_PLACES = {
    "EquiformerV2DeNS": "equiformer_v2",
    "eSCNDeNS": "escn",
    "eSENDeNS": "esen",
    "EquiformerDeNS": "equiformer.model",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
