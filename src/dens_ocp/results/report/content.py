"""What a page is made of, before it is HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union


@dataclass(frozen=True)
class Picture:
    """A PNG with a text for people who cannot see it and a sentence on how to read it.

    ``width`` is the number of pixels below which it is scrolled and not shrunk.
    """

    path: Path
    alt: str
    caption: str
    width: int = 640


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows, the others are numbers."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Missing:
    """Why something is left out, and what would bring it."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph, or preformatted text."""

    text: str
    preformatted: bool = False


@dataclass(frozen=True)
class Details:
    """Parts that are folded away."""

    summary: str
    parts: Sequence[Union[Picture, Table, Missing, Text]]  # noqa: UP007


Part = Union[Picture, Table, Missing, Text, Details]  # noqa: UP007


@dataclass
class Section:
    """A heading and what is below it."""

    title: str
    parts: list[Part] = field(default_factory=list)


def number(value: float | None, digits: int = 1) -> str:
    """A number with ``digits`` after the point, or a dash.

    >>> number(3.14159), number(None)
    ('3.1', '\u2013')
    """
    return "\u2013" if value is None else f"{value:,.{digits}f}"
