"""The documentation site: ``make docs``."""

import os
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

from sphinx.application import Sphinx

import dens_ocp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(Path(__file__).parent))

project = "dens-ocp"
author = "dens-ocp contributors"
copyright = "dens-ocp contributors, MIT license"
release = version = dens_ocp.__version__
html_title = f"dens-ocp {release}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "option_tables",
    "equations",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "svg"
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings say more: shapes and units

LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")
FILES = {"slurm": "slurm/README.md", "changelog": "CHANGELOG.md", "contributing": "CONTRIBUTING.md"}
"""Pages of the site that are files beside ``docs``."""


def page_source(app: Sphinx, name: str, source: list[str]) -> None:
    """Our Markdown as MyST reads it: anchors, and links to and from files outside ``docs``."""
    text = source[0]
    folder = Path("docs", name).parent
    if name in FILES:
        text = (ROOT / FILES[name]).read_text()
        folder = Path(FILES[name]).parent
    if fnmatch(name, "gpu/*/report"):  # linked from gpu/README, not in the menu
        text = f"---\norphan: true\n---\n{text}"
    text = re.sub(r'<a id="([\w-]+)"></a>\n', r"(\1)=\n", text)
    source[0] = LINK.sub(lambda link: f"]({place(folder, link[1], name)}", text)


def place(folder: Path, target: str, name: str) -> str:
    """A link of a page, seen from the page: to a page, a picture, or a file of the project."""
    path = os.path.normpath(folder / target)
    pages = {file: f"docs/{page}.md" for page, file in FILES.items()}
    pages["README.md"] = "docs/index.md"
    return os.path.relpath(pages.get(path, path), Path("docs", name).parent)


def setup(app: Sphinx) -> None:
    app.connect("source-read", page_source)
