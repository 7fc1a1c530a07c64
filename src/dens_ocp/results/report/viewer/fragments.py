"""The 3D viewer as HTML: the script, once a page, and a fragment for each set of scenes."""

from __future__ import annotations

import gzip
import html
import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from importlib.resources import files

from dens_ocp.results.report.viewer.scenes import Scene, as_json, palette

POLICY = (
    "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
)
"""Content security policy of a page with viewers: the browser fetches nothing."""

_LIBRARY, _LICENSE = "3Dmol-min.js", "3Dmol-LICENSE.txt"


def fragment(scenes: Sequence[Scene], description: str, chosen: int = 0, height: int = 420) -> str:
    """HTML of a viewer of ``scenes``. The page needs :func:`script` and :func:`style` too.

    Args:
        scenes: at least one; a menu chooses among several.
        description: of what is shown, for readers of the page who don't see it.
        chosen: index of the scene that is shown first.
        height: of the drawing, in pixels.
    """
    content = {
        "scenes": [as_json(each) for each in scenes],
        "elements": palette(scenes),
        "chosen": chosen,
    }
    return (
        f'<div class="viewer3d" data-state="waiting" data-height="{height}" '
        f'aria-label="{html.escape(description)}">'
        '<p class="viewer3d-note">The 3D viewer needs JavaScript.</p>'
        f'<script type="application/json">{_in_script(content)}</script></div>'
    )


def script() -> str:
    """HTML that makes viewers of all fragments of a page: to stand once, after them.

    3Dmol.js is in it with its licence, compressed; the browser expands it when the first viewer
    comes into sight.
    """
    return (
        f'<script type="application/octet-stream" id="viewer3d-library">{_library()}</script>'
        f"<script>{_text('viewer.js')}</script>"
    )


def style() -> str:
    """The style sheet of viewers, without its tag."""
    return _text("viewer.css")


def page(scenes: Sequence[Scene], description: str, chosen: int = 0, height: int = 420) -> str:
    """A whole HTML page with one viewer; arguments as of :func:`fragment`."""
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(description)}</title>"
        f"<style>body {{ margin: 0; font: 15px/1.5 system-ui, sans-serif; }}{style()}</style>"
        f"</head><body>{fragment(scenes, description, chosen, height)}{script()}</body></html>"
    )


def _in_script(content: object) -> str:
    """JSON that cannot end its script element, whatever texts it holds."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


@cache
def _library() -> str:
    """3Dmol.js as base64 of gzip; its licence asks to stay with it."""
    code = f"/*!\n{_text(_LICENSE)}*/\n{_text(_LIBRARY)}"
    return b64encode(gzip.compress(code.encode(), 9, mtime=0)).decode("ascii")


def _text(name: str) -> str:
    return (files("dens_ocp.results.report.viewer") / name).read_text(encoding="utf-8")
