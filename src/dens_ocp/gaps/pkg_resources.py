"""``pkg_resources``, as far as torchtnt 0.2.4 asks for it: setuptools 82 dropped it.

fairchem's profiler imports torchtnt. It can go with a release of torchtnt that reads versions with
``importlib.metadata``.
"""

from __future__ import annotations

import sys
from importlib import metadata
from types import ModuleType


def get_distribution(name: str) -> metadata.Distribution:
    """The installed package, with its ``version``."""
    return metadata.distribution(name)


def after(_: ModuleType) -> None:
    """Nobody else finds it: others ask for more of ``pkg_resources`` than is here."""
    if getattr(sys.modules.get("pkg_resources"), "__file__", None) == __file__:
        del sys.modules["pkg_resources"]
