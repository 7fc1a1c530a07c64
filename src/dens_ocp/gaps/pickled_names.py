"""Names that pickles hold, of things that have moved: checkpoints and records outlive the versions
that wrote them.

NumPy 2 has the functions of ``numpy.core`` in ``numpy._core``, Python 3.13 the paths of ``pathlib``
in ``pathlib._local``. It can go when no file of the older ones is read any more.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from pathlib import PosixPath
from typing import Any

import numpy as np

CORES = ("numpy.core", "numpy._core")
_FUNCTIONS = (("multiarray", "_reconstruct"), ("multiarray", "scalar"), ("numeric", "_frombuffer"))


def numpy_functions() -> Iterator[tuple[str, str, Callable[..., Any]]]:
    """Module and name as NumPy 1 and NumPy 2 write them, and the function of the installed one."""
    core = CORES[int(np.__version__.split(".")[0]) > 1]
    for module, name in _FUNCTIONS:
        function = getattr(importlib.import_module(f"{core}.{module}"), name)
        for written in CORES:
            yield f"{written}.{module}", name, function


def renamed() -> list[Callable[..., Any]]:
    """Functions of NumPy and the class of paths under all names, as ``torch.load`` looks them up:
    by the attributes ``__module__`` and ``__qualname__``."""
    paths = ((module, "PosixPath", PosixPath) for module in ("pathlib", "pathlib._local"))
    return [_named(*each) for each in (*numpy_functions(), *paths)]


def _named(module: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def same(*args: Any) -> Any:
        return function(*args)

    same.__module__, same.__name__, same.__qualname__ = module, name, name
    return same
