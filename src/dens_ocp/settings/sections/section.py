"""A section of a config as a pydantic model, and its mistakes as one message."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from dens_ocp.errors import DensError, nearest
from dens_ocp.settings.sections.values import is_missing


class Section(BaseModel):
    """Names and types of a section's options. Defaults are fairchem's and are not filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")


S = TypeVar("S", bound=Section)


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


def read(
    model: type[Section],
    block: Any,
    where: str,
    also: Collection[str] = (),
    others: bool = False,
    example: str = "",
) -> dict[str, Any]:
    """The options of a section, typed; those that say ``null`` are left out.

    Args:
        model: names, types and bounds.
        block: the section.
        where: its name, for messages.
        also: further names, handed on as they are.
        others: whether all other names are handed on too.
        example: of a section, for a message.

    Raises:
        DensError: an unknown name, with the nearest; a value that cannot be read.
    """
    block = mapping(block, where, example)
    known = model.model_fields
    typed: dict[str, Any] = {}
    result: dict[str, Any] = {}
    for name, value in block.items():
        if name in known:
            if not is_missing(value):
                typed[name] = value
        elif others or name in also:
            result[name] = value
        else:
            raise unknown(where, name, {*known, *also})
    try:
        values = model.model_validate(typed)
    except ValidationError as error:
        raise DensError("; ".join(_reports(model, error, where))) from None
    # in the order of the section
    result |= {name: getattr(values, name) for name in typed}
    return {name: result[name] for name in block if name in result}


def _reports(model: type[Section], error: ValidationError, where: str) -> list[str]:
    reports = {}
    for entry in error.errors():
        name = str(entry["loc"][0])
        text = entry["msg"].removeprefix("Value error, ")
        text = text.replace("Input should be", "must be")
        if not text.startswith(("is ", "must ", "has ")):
            text = f"is not valid: {text}"
        examples = model.model_fields[name].examples if name in model.model_fields else None
        if examples and ";" not in text and "did you mean" not in text:
            text += f"; for example {examples[0]}"
        reports.setdefault(name, f"{where}.{name}: {entry['input']!r} {text}")
    return list(reports.values())
