"""A block of options as a pydantic model: what its words mean, and its mistakes as one message."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from dens_ocp.errors import DensError, nearest

_MISSING = ("none", "null", "~", "")


class Section(BaseModel):
    """Names, types, bounds and defaults of the options of a block."""

    defaults_hold: ClassVar[bool] = True

    model_config = ConfigDict(frozen=True, extra="forbid")


class FairchemSection(Section):
    """A block of fairchem-core's config, for :func:`read`: an option that is not given is left out,
    and fairchem-core decides; the defaults of the fields only have the right type."""

    defaults_hold: ClassVar[bool] = False


S = TypeVar("S", bound=Section)


def is_missing(value: Any) -> bool:
    """Whether a value says "nothing": ``null``, or the string that an override makes of it."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _MISSING)


def choice(value: Any, known: Iterable[str]) -> str:
    """The one of ``known`` that ``value`` spells, in any case of its letters.

    Raises:
        ValueError: none; with the nearest.
    """
    known = tuple(known)
    for name in known:
        if str(value).lower() == name.lower():
            return name
    near = nearest(str(value), known)
    listed = f"; the choices are {', '.join(known)}" if not near or len(known) < 5 else ""
    raise ValueError(f"is not known{near}{listed}")


def chosen(value: Any, known: Iterable[str], where: str) -> str:
    """:func:`choice` of the option ``where``.

    Raises:
        DensError: none.
    """
    try:
        return choice(value, known)
    except ValueError as error:
        raise DensError(f"{where}: {value!r} {error}") from None


def one_of(*known: str) -> Any:
    """Type of a word that is one of ``known``, in any case of its letters."""
    return Annotated[str, BeforeValidator(lambda value: choice(value, known))]


def mapping(block: Any, where: str, example: str = "") -> Mapping[str, Any]:
    """``block``, if it is a mapping; an empty one for nothing.

    Raises:
        DensError: it is something else.
    """
    if is_missing(block):
        return {}
    if not isinstance(block, Mapping):
        written = f"; write for example {example}" if example else ""
        raise DensError(f"{where}: {block!r} is not a block of options{written}")
    return block


def unknown(where: str, name: Any, known: Collection[str]) -> DensError:
    """The error for an option that nothing reads."""
    near = nearest(str(name), known)
    rest = near or f" (known: {', '.join(sorted(known))})"
    return DensError(f"unknown option {where}.{name}{rest}")


def parsed(model: type[S], block: Any, where: str, example: str = "") -> S:
    """A block as an object of its model, with defaults, also for options that are null.

    Args:
        model: names, types, bounds and defaults. Its validators find ``where`` in their context.
        block: the options.
        where: name of the block, for messages.
        example: of a block, for a message.

    Raises:
        DensError: an unknown name, with the nearest; a value that cannot be read.
    """
    block = mapping(block, where, example)
    for name in block:
        if name not in model.model_fields:
            raise unknown(where, name, model.model_fields)
    given = {name: value for name, value in block.items() if value is not None}
    try:
        return model.model_validate(given, context={"where": where})
    except ValidationError as error:
        raise DensError("; ".join(_reports(model, error, where))) from None


def read(
    model: type[Section],
    block: Any,
    where: str,
    also: Collection[str] = (),
    others: bool = False,
    example: str = "",
) -> dict[str, Any]:
    """The options that a block gives, typed, in their order and without defaults. Those that say
    ``null``, also as a word, are left out.

    Args:
        model, block, where, example: as of :func:`parsed`.
        also: further names, handed on as they are.
        others: whether all other names are handed on too.

    Raises:
        DensError: as :func:`parsed`.
    """
    block = mapping(block, where, example)
    known = model.model_fields
    given = {}
    for name, value in block.items():
        if name not in known and not others and name not in also:
            raise unknown(where, name, {*known, *also})
        if name not in known or not is_missing(value):
            given[name] = value
    values = parsed(model, {name: given[name] for name in given if name in known}, where)
    return given | {name: getattr(values, name) for name in given if name in known}


def need(
    given: Collection[str], names: Iterable[str], model: type[Section], where: str, why: str = ""
) -> None:
    """Make sure that options without a default are given.

    Args:
        given: names of those that are. names: of those that have to be.
        model: of the block, which has an example of each.
        where: name of the block. why: they have to be; both for the message.

    Raises:
        DensError: one is missing.
    """
    for name in names:
        if name not in given:
            example = (model.model_fields[name].examples or ["VALUE"])[0]
            raise DensError(f"{where}.{name} is missing{why}; for example {example}")


def _reports(model: type[Section], error: ValidationError, where: str) -> list[str]:
    reports: dict[tuple[str, ...], str] = {}
    for entry in error.errors():
        names = [str(part) for part in entry["loc"][:1]]
        text = entry["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        if not text.startswith(("is ", "must ", "has ")):
            text = f"is not valid: {text}"
        examples = [each for name in names for each in model.model_fields[name].examples or ()]
        if examples and ";" not in text and "did you mean" not in text:
            text += f"; for example {examples[0]}"
        of_one = bool(names) and entry["type"] != "missing"
        shown = f": {entry['input']!r}" if of_one else ""
        reports.setdefault(tuple(names), f"{'.'.join([where, *names])}{shown} {text}")
    return list(reports.values())
