"""The page: its template filled in, as one file that needs nothing beside itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from dens_ocp.errors import DensError
from dens_ocp.results.report.figures.drawing import DENSITY_FROM, DPI
from dens_ocp.results.report.figures.evaluation_figures import FEW, SHOWN
from dens_ocp.results.report.verdict import BAD, GOOD, LEVELS, NOTE, Check, worst
from dens_ocp.whole_files import write_text

LISTED = 60
"""So many groups of a kind are in a table, the most frequent ones."""

_PIXELS_PER_INCH = 100  # of figures on the page
_SIGN = {GOOD: "\u2713", NOTE: "!", BAD: "\u2717"}
_WORD = {GOOD: "ok", NOTE: "note", BAD: "warning"}


def headline(checks: Sequence[Check]) -> str:
    """The verdict in one line.

    >>> headline([Check(GOOD, "Numbers", "fine"), Check(BAD, "Noise", "nothing")])
    '1 warning (Noise)'
    """
    if not checks:
        return "Nothing to judge by"
    parts = []
    for level in (BAD, NOTE):
        subjects = [check.subject for check in checks if check.level == level]
        if subjects:
            many = "" if len(subjects) == 1 else "s"
            parts.append(f"{len(subjects)} {_WORD[level]}{many} ({', '.join(subjects)})")
    if worst(checks) != BAD:
        parts.insert(0, "No warnings")
    return ", ".join(parts)


def spelled_out(checks: Sequence[Check]) -> str:
    """The verdict for a terminal: :func:`headline`, then what each warning and note says.

    >>> print(spelled_out([Check(GOOD, "Numbers", "Fine."), Check(BAD, "Noise", "Nothing.")]))
    1 warning (Noise)
      warning: Noise: Nothing.
    """
    found = [check for level in (BAD, NOTE) for check in checks if check.level == level]
    lines = [f"  {_WORD[check.level]}: {check.subject}: {check.text}" for check in found]
    return "\n".join([headline(checks), *lines])


def write(path: Path, title: str, subtitle: str, checks: Sequence[Check], **content: Any) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: of ``index.html``.
        title, subtitle: of the page.
        checks: of the verdict; those to act on stand first.
        content: what ``report.html.j2`` shows: ``training``, ``evaluation``, ``gallery``,
            ``scores``, ``versions``; None for what is not there. All text is escaped.

    Raises:
        DensError: the folder cannot be written.
    """
    environment = Environment(
        loader=PackageLoader("dens_ocp.results.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"base64": _base64, "widest": _widest, "thousands": "{:,}".format}
    ordered = sorted(checks, key=lambda check: -LEVELS.index(check.level))
    text = environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle,
        headline=headline(checks),
        worst=worst(checks),
        checks=[vars(c) | {"sign": _SIGN[c.level], "word": _WORD[c.level]} for c in ordered],
        density_from=DENSITY_FROM,
        few=FEW,
        shown=SHOWN,
        listed=LISTED,
        **content,
    )
    try:
        write_text(path, text)
    except OSError as error:
        raise DensError(f"--out: {path} cannot be written: {error}") from None
    return path


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def _widest(path: Path) -> int:
    """Pixels of a picture on the page at most: sharp on screens with two pixels for one."""
    with Image.open(path) as image:
        return image.width * _PIXELS_PER_INCH // DPI
