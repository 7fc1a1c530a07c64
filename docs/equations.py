"""Equations as SVG in the page, set by Matplotlib: no LaTeX, and no network to read them."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

from docutils import nodes
from matplotlib.font_manager import FontProperties
from matplotlib.mathtext import math_to_image
from sphinx.application import Sphinx

_SIZE = 12  # points; the text has 16 pixels


def picture(latex: str) -> str:
    """The SVG element of a formula, in the colour of the text and on its line."""
    file = io.BytesIO()
    formula = " ".join(latex.split())
    depth = math_to_image(f"${formula}$", file, FontProperties(size=_SIZE), dpi=72, format="svg")
    svg = file.getvalue().decode()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    style = f'<svg role="img" aria-label="{nodes.unescape(formula)}" '
    style += f'style="vertical-align: {-depth}pt; fill: currentColor; max-width: 100%"'
    return svg.replace("<svg", style, 1).replace("\n", " ")


def _inline(self: Any, node: nodes.math) -> None:
    self.body.append(picture(node.astext()))
    raise nodes.SkipNode


def _block(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math" style="text-align: center">{picture(node.astext())}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    logging.getLogger("matplotlib.mathtext").setLevel(logging.WARNING)  # fonts that it substitutes
    app.add_html_math_renderer("svg", (_inline, None), (_block, None))
    return {"parallel_read_safe": True}
