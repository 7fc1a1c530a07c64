"""Options that belong to a class or function: their names and types are its parameters'."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin, get_type_hints

from dens_ocp.dens.options import is_missing, unknown
from dens_ocp.errors import DensError
from dens_ocp.settings.sections.values import flag, number, whole

_PLAIN = {int, float, bool, str, type(None)}


def parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Parameters by name. Of a class also those that its ``__init__`` hands on to a base class."""
    found: dict[str, inspect.Parameter] = {}
    for each in _functions(function):
        mine = inspect.signature(each).parameters
        for name, parameter in mine.items():
            if name != "self" and parameter.kind in (
                parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY
            ):  # fmt: skip
                found.setdefault(name, parameter)
        if not any(each.kind is each.VAR_KEYWORD for each in mine.values()):
            break
    return found


def typed(
    options: Mapping[str, Any],
    function: Callable[..., Any],
    where: str,
    also: Collection[str] = (),
    strict: bool = True,
) -> dict[str, Any]:
    """Options as ``function`` wants them: numbers and flags that came as strings are read.

    Args:
        options: by name.
        function: what takes them, a class for example.
        where: name of the section, for messages.
        also: names that ``function`` need not know; handed on as they are.
        strict: whether an unknown name or a value of the wrong type is an error; else such are
            handed on as they are.

    Raises:
        DensError: see ``strict``.
    """
    known, hints = parameters(function), _hints(function)
    result = {}
    for name, value in options.items():
        if name in also or (name not in known and not strict):
            result[name] = value
            continue
        if name not in known:
            raise unknown(where, name, [*known, *also])
        try:
            result[name] = _read(value, _kinds(hints.get(name), known[name].default))
        except ValueError as error:
            if strict:
                raise DensError(f"{where}.{name}: {value!r} {error}") from None
            result[name] = value
    return result


def missing(options: Mapping[str, Any], function: Callable[..., Any], given: str) -> list[str]:
    """Parameters of ``function`` without default that are neither in ``options`` nor ``given``."""
    return [
        name
        for name, parameter in parameters(function).items()
        if parameter.default is parameter.empty and name != given and name not in options
    ]


def _functions(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    if not isinstance(function, type):
        return [function]
    return [vars(base)["__init__"] for base in function.__mro__ if "__init__" in vars(base)][:-1]


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for each in reversed(_functions(function)):
        try:
            hints |= get_type_hints(each)
        except (NameError, TypeError):  # names of a TYPE_CHECKING block
            continue
    return hints


@dataclass(frozen=True)
class _Kinds:
    """Types that a value may have: ``plain`` ones (``object``: anything), and of a list's entries
    (None: no list)."""

    plain: frozenset[Any]
    entries: frozenset[Any] | None = None


_ANYTHING = _Kinds(frozenset({object}))


def _kinds(hint: Any, default: Any) -> _Kinds:
    if hint is None:
        # eta_min=0: a number; verbose="deprecated": who knows
        kind = {bool: bool, int: float, float: float}.get(type(default), object)
        return _Kinds(frozenset({kind}))
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        several = [_kinds(each, None) for each in get_args(hint)]
        entries = [each.entries for each in several if each.entries is not None]
        plain = frozenset().union(*(each.plain for each in several))
        return _Kinds(plain, frozenset().union(*entries) if entries else None)
    if hint in _PLAIN:
        return _Kinds(frozenset({hint}))
    if hint in (list, tuple) or origin in (list, tuple):
        entries = [_kinds(each, None).plain for each in get_args(hint) if each is not Ellipsis]
        return _Kinds(frozenset(), frozenset().union(*entries) or frozenset({object}))
    return _ANYTHING


def _read(value: Any, kinds: _Kinds) -> Any:
    plain, entries = kinds.plain, kinds.entries
    if isinstance(value, (list, tuple)) and entries is not None:
        return type(value)(_read(each, _Kinds(entries)) for each in value)
    if object in plain and not isinstance(value, str):
        return value
    if is_missing(value) and plain & {type(None), object}:
        return None
    for kind, reader in ((bool, flag), (int, whole), (float, number)):
        if kind in plain and (kind is not bool or isinstance(value, (str, bool))):
            try:
                return reader(value)
            except ValueError:
                continue
    if str in plain and isinstance(value, str):
        return value
    if object in plain:
        return _loosely(value)
    if entries is not None and not isinstance(value, Mapping):
        try:
            return [_read(value, _Kinds(entries))]
        except ValueError:
            pass
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "a word",
             type(None): "null"}  # fmt: skip
    asked = [
        names[kind] for kind in names if kind in plain and not (kind is int and float in plain)
    ]
    asked += ["a list"] * (entries is not None)
    raise ValueError(f"is not {' or '.join(asked)}")


def _loosely(value: str) -> Any:
    """A string that YAML 1.2 reads as a number; else as it is."""
    try:
        return number(value)
    except ValueError:
        return value
