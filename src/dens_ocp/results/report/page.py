"""The page: content to HTML that needs nothing beside itself."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.results.report.content import Details, Missing, Part, Picture, Section, Table, Text
from dens_ocp.results.report.figures.drawing import DPI
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


def render(
    title: str, subtitle: str, checks: Sequence[Check], top: Sequence[Part], rest: list[Section]
) -> str:
    """The page as text.

    Args:
        title, subtitle: of the page.
        checks: of the verdict.
        top: what follows in the verdict: the table of key numbers.
        rest: all other sections.
    """
    style = files("dens_ocp.results.report").joinpath("style.css").read_text()
    links = "".join(f'<a href="#s{i}">{escape(s.title)}</a>' for i, s in enumerate(rest))
    sections = "\n".join(
        f'<section id="s{i}"><h2>{escape(s.title)}</h2>\n{_parts(s.parts)}</section>'
        for i, s in enumerate(rest)
    )
    # of all checks, the ones to act on first
    ordered = sorted(checks, key=lambda check: -LEVELS.index(check.level))
    items = "\n".join(
        f'<li class="{check.level}"><span class="sign" aria-hidden="true">{_SIGN[check.level]}'
        f'</span><span><b>{escape(check.subject)}</b> <span class="word">({_WORD[check.level]})'
        f"</span> {escape(check.text)}</span></li>"
        for check in ordered
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header>
<main>
<section class="verdict {worst(checks)}" id="verdict" aria-labelledby="verdict-title">
<h2 id="verdict-title">{escape(headline(checks))}</h2>
{_parts(top)}
<ul class="checks">
{items}
</ul>
</section>
<nav aria-label="Sections">{links}</nav>
{sections}
</main>
</body>
</html>
"""


def _parts(parts: Sequence[Part]) -> str:
    return "".join(_part(part) + "\n" for part in parts)


def _part(part: Part) -> str:
    if isinstance(part, Picture):
        return _picture(part)
    if isinstance(part, Table):
        return _table(part)
    if isinstance(part, Missing):
        return f'<p class="missing">Left out: {escape(part.text)}</p>'
    if isinstance(part, Details):
        return f"<details><summary>{escape(part.summary)}</summary>\n{_parts(part.parts)}</details>"
    assert isinstance(part, Text)
    if part.preformatted:
        return f'<pre tabindex="0">{escape(part.text)}</pre>'
    return f"<p>{escape(part.text)}</p>"


def _picture(picture: Picture) -> str:
    content = Path(picture.path).read_bytes()
    data = base64.b64encode(content).decode("ascii")
    widest = int.from_bytes(content[16:20], "big") * _PIXELS_PER_INCH // DPI  # PNG: pixels
    least = min(picture.width, widest)
    return (
        f'<figure><div class="scroll" tabindex="0"><img style="min-width:{least}px;'
        f'max-width:{widest}px" src="data:image/png;base64,{data}" alt="{escape(picture.alt)}">'
        f"</div><figcaption>{escape(picture.caption)} "
        f'<span class="file">{escape(Path(picture.path).name)}</span></figcaption></figure>'
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    return (
        '<div class="scroll" tabindex="0"><table>'
        f"<caption><span>{escape(table.caption)}</span></caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def write(path: Path, text: str) -> Path:
    """Write the page, whole or not at all.

    Raises:
        DensError: the folder cannot be written.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise DensError(f"--out: {path} cannot be written: {error}") from None
    return path
