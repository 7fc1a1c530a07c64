"""The page: its template filled in, as one file that needs nothing beside itself."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from yaml import safe_dump

from dens_ocp.errors import DensError
from dens_ocp.results.report.figures.drawing import DENSITY_FROM, DPI
from dens_ocp.results.report.figures.evaluation_figures import FEW, SHOWN
from dens_ocp.results.report.verdict import BAD, GOOD, LEVELS, NOTE, Check, worst
from dens_ocp.whole_files import write_text

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


def write(path: Path, title: str, checks: Sequence[Check], **content: Any) -> Path:
    """Write the page, whole or not at all.

    Args:
        path: of ``index.html``.
        title: of the page.
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
    for function in (number, median, short, yaml, base64, widest):
        environment.filters[function.__name__] = function
    ordered = sorted(checks, key=lambda check: -LEVELS.index(check.level))
    text = environment.get_template("report.html.j2").render(
        title=title,
        written=time.strftime("%Y-%m-%d %H:%M"),
        headline=headline(checks),
        worst=worst(checks),
        checks=[vars(c) | {"sign": _SIGN[c.level], "word": _WORD[c.level]} for c in ordered],
        density_from=DENSITY_FROM,
        few=FEW,
        shown=SHOWN,
        **content,
    )
    try:
        write_text(path, text)
    except OSError as error:
        raise DensError(f"--out: {path} cannot be written: {error}") from None
    return path


# ---- filters of the template -------------------------------------------------------------------


def number(value: float | None, digits: int = 1) -> str:
    """A number with ``digits`` after the point, or a dash.

    >>> number(3.14159), number(None)
    ('3.1', '\u2013')
    """
    return "\u2013" if value is None else f"{value:,.{digits}f}"


def median(values: np.ndarray) -> float | None:
    """The median of (n,) values; None without values."""
    return float(np.median(values)) if len(values) else None


def short(value: Any) -> str:
    """A value of a config; numbers with six digits."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def yaml(content: Any) -> str:
    """A config as YAML; what YAML does not know, as text."""
    return safe_dump(json.loads(json.dumps(content, default=str)), sort_keys=False)


def base64(path: Path) -> str:
    """A picture, to be written into the page."""
    return b64encode(path.read_bytes()).decode("ascii")


def widest(path: Path) -> int:
    """Pixels of a picture on the page at most."""
    with Image.open(path) as image:
        return image.width * _PIXELS_PER_INCH // DPI
