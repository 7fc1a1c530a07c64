"""Single values of a config: what a word of YAML is meant to be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from fairchem.core.common.registry import registry
from fairchem.core.common.utils import setup_imports
from pydantic import BeforeValidator

from dens_ocp.errors import nearest
from dens_ocp.registration import register

_MISSING = ("none", "null", "~", "")
_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")


def is_missing(value: Any) -> bool:
    """Whether a value says "nothing": ``null``, or the string that an override makes of it."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


def number(value: Any) -> int | float:
    """A finite number. Strings are read as YAML 1.2 and Python do: ``"5e-4"`` is 0.0005.

    Integers stay integers.

    Raises:
        ValueError: no number, or NaN or infinite.

    >>> number("5e-4"), number("4"), number(100)
    (0.0005, 4, 100)
    """
    read = value
    if isinstance(value, str):
        try:
            read = int(value)
        except ValueError:
            try:
                read = float(value)
            except ValueError:
                raise ValueError("is not a number") from None
    if isinstance(read, bool) or not isinstance(read, (int, float)):
        raise ValueError("is not a number")
    if not math.isfinite(read):
        raise ValueError("is not a finite number")
    return read


def whole(value: Any) -> int:
    """A whole number; 4.0 and ``"4"`` are 4.

    Raises:
        ValueError: no number, or one with a fraction.
    """
    try:
        read = number(value)
    except ValueError:
        raise ValueError("is not a whole number") from None
    if read != int(read):
        above = math.ceil(read)
        near = f"{above - 1} and {above}" if above > 1 else f"{above}"
        raise ValueError(f"is not a whole number; the nearest: {near}")
    return int(read)


def flag(value: Any) -> bool:
    """True or False, also as a word.

    Raises:
        ValueError: neither.
    """
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _TRUE or word in _FALSE:
            return word in _TRUE
        raise ValueError("is neither True nor False")
    if isinstance(value, (bool, int)) and value in (0, 1):
        return bool(value)
    raise ValueError("is neither True nor False")


def number_or_off(value: Any) -> int | float:
    """A number; ``False`` switches off what 0 does."""
    return 0 if value is False else number(value)


def numbers(value: Any) -> list[int | float]:
    """A list of numbers; a single one is a list of one.

    Raises:
        ValueError: an entry that is no number.
    """
    entries = list(value) if isinstance(value, (list, tuple)) else [value]
    try:
        return [number(entry) for entry in entries]
    except ValueError:
        raise ValueError("is not a list of numbers") from None


def one_of(*known: str) -> Any:
    """Type of a word that is one of ``known``, in any case of its letters."""

    def read(value: Any) -> str:
        return choice(value, known)

    return Annotated[str, BeforeValidator(read)]


def choice(value: Any, known: Iterable[str]) -> str:
    """The one of ``known`` that ``value`` spells.

    Raises:
        ValueError: none; with the nearest.
    """
    known = tuple(known)
    for name in known:
        if str(value).lower() == name.lower():
            return name
    near = nearest(str(value), known)
    listed = f"; there are {', '.join(known)}" if not near or len(known) < 5 else ""
    raise ValueError(f"is not known{near}{listed}")


def registered(kind: str, name: str) -> Iterable[str]:
    """Names in fairchem's registry, of which ``name`` is perhaps one.

    fairchem's own classes register themselves when they are imported; all of them are, before a
    name counts as unknown.

    Args:
        kind: ``dataset``, ``logger``, ``loss``, ``model``, ...
    """
    register()
    names = registry.mapping[f"{kind}_name_mapping"]
    if name not in names:
        setup_imports()
    return names


def _type(kind: Any, read: Callable[[Any], Any]) -> Any:
    return Annotated[kind, BeforeValidator(read)]


Number = _type(int | float, number)
NumberOrOff = _type(int | float, number_or_off)
Decimal = _type(float, lambda value: float(number(value)))
"""For options of which fairchem asks that they are ``float``; 0 becomes 0.0."""
DecimalOrOff = _type(float, lambda value: float(number_or_off(value)))
Whole = _type(int, whole)
Flag = _type(bool, flag)
Numbers = _type(list[int | float], numbers)
