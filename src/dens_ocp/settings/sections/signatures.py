"""Options that belong to a class or function: their names and types are its parameters'."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from dens_ocp.dens.options import is_missing, unknown
from dens_ocp.errors import DensError
from dens_ocp.settings.sections.values import Flag, Number, Whole, number


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
        kind, words = _kind(hints.get(name), known[name].default)
        try:
            result[name] = TypeAdapter(kind).validate_python(value)
        except ValidationError:
            if strict:
                raise DensError(f"{where}.{name}: {value!r} is not {words}") from None
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


def _flag_not_number(value: Any) -> Any:
    if isinstance(value, (str, bool)):
        return value
    raise ValueError


def _nothing(value: Any) -> None:
    if is_missing(value):
        return None
    raise ValueError


def _loosely(value: Any) -> Any:
    """A string that YAML 1.2 reads as a number, or null; all else as it is."""
    if is_missing(value):
        return None
    try:
        return number(value) if isinstance(value, str) else value
    except ValueError:
        return value


_Anything = Annotated[Any, BeforeValidator(_loosely)]
_PLAIN: dict[Any, tuple[Any, str]] = {
    bool: (Annotated[Flag, BeforeValidator(_flag_not_number)], "True or False"),
    int: (Whole, "a whole number"),
    float: (Number, "a number"),
    type(None): (Annotated[None, BeforeValidator(_nothing)], "null"),
    str: (str, "a word"),
}
"""Types of parameters, in the order in which they are tried -> ours, and their names."""


def _kind(hint: Any, default: Any) -> tuple[Any, str]:
    """What reads the value of a parameter, and what it has to be in words."""
    if hint is None:
        # eta_min=0: a number; verbose="deprecated": who knows
        hint = {bool: bool, int: float, float: float}.get(type(default))
    hints = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    lists = [each for each in hints if (get_origin(each) or each) in (list, tuple)]
    plain = [kind for kind in _PLAIN if kind in hints]
    if len(plain) + len(lists) < len(hints):
        return _Anything, "anything"
    kinds = [_PLAIN[kind][0] for kind in plain]
    words = [_PLAIN[kind][1] for kind in plain if kind is not int or float not in plain]
    if lists:
        entries = tuple(each for one in lists for each in get_args(one) if each is not Ellipsis)
        entry = _kind(Union[entries], None)[0] if entries else _Anything  # noqa: UP007
        kinds += [list[entry], Annotated[list[entry], BeforeValidator(lambda one: [one])]]
        words.append("a list")
    if len(kinds) == 1:
        return kinds[0], words[0]
    tried = Annotated[Union[tuple(kinds)], Field(union_mode="left_to_right")]  # noqa: UP007
    return tried, " or ".join(words)
