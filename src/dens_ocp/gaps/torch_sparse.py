"""``torch_sparse``, which ``import fairchem.core`` wants for three families of its models.

Where torch-sparse is not installed these models cannot be built, all others can. It can go when
fairchem-core does not import the package any more (2.0 does not).
"""

from __future__ import annotations

from typing import Any

USERS = ("gemnet", "gp_gemnet", "dimenetplusplus")
"""How the names of models start that use it."""

MESSAGE = (
    "GemNet-OC, GemNet-T, GemNet-GP and DimeNet++ need torch-sparse and torch-scatter, which are "
    "not installed: pip install --no-build-isolation torch-scatter torch-sparse (both are compiled "
    "for the torch that is installed)"
)


class _Missing(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise ImportError(MESSAGE)


class SparseTensor(metaclass=_Missing):
    """Says what is missing when it is used.

    Raises:
        ImportError: always.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        raise ImportError(MESSAGE)
