"""Single values of a config: what a word of YAML is meant to be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any

from fairchem.core.common.registry import registry
from fairchem.core.common.utils import setup_imports
from pydantic import BeforeValidator

from dens_ocp.registration import register

_TRUE = ("true", "yes", "on")
_FALSE = ("false", "no", "off")


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


def _decimal(value: Any) -> float:
    return float(number(value))


def _decimal_or_off(value: Any) -> float:
    return float(number_or_off(value))


Number = Annotated[int | float, BeforeValidator(number)]
NumberOrOff = Annotated[int | float, BeforeValidator(number_or_off)]
Decimal = Annotated[float, BeforeValidator(_decimal)]
"""For options of which fairchem asks that they are ``float``; 0 becomes 0.0."""
DecimalOrOff = Annotated[float, BeforeValidator(_decimal_or_off)]
Whole = Annotated[int, BeforeValidator(whole)]
Flag = Annotated[bool, BeforeValidator(flag)]
Numbers = Annotated[list[int | float], BeforeValidator(numbers)]
