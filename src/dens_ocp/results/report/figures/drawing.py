"""What all pictures share: colours, the look of axes, and how a figure becomes a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dens_ocp.errors import DensError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Of Okabe and Ito, which people with colour-blindness tell apart; black and yellow left out."""

MARKERS = ("o", "s", "^", "D", "v", "P")
"""Go with ``COLOURS``, for print without colour."""

DPI = 140
"""Pixels per inch of the files."""

DENSITY_FROM = 20_000
"""More points than this are drawn as densities."""


def new_figure(
    rows: int, columns: int, size: tuple[float, float], **options: object
) -> tuple[Figure, np.ndarray]:
    """A figure of ``size`` (inches) and its (rows, columns) array of axes; no global state."""
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def plain(axis: Axes) -> None:
    """Grid and no frame above and right."""
    axis.grid(alpha=0.25, linewidth=0.5)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def plain_ticks(axis: Axes) -> None:
    """Plain numbers at a logarithmic axis that goes up; more of them where it is short."""
    formatter = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(formatter)
    low, high = axis.get_ylim()
    few = high / low < 30
    axis.yaxis.set_minor_formatter(formatter if few else ticker.NullFormatter())
    if few:
        axis.yaxis.set_minor_locator(ticker.LogLocator(subs=(2, 3, 5)))
    axis.tick_params(axis="y", which="both", labelsize=8)
    axis.grid(which="minor", alpha=0.15, linewidth=0.5)


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        path: of its file.
        narrow: PNG of its form for small screens.
    """

    path: Path
    narrow: bytes


def save_both(draw: Callable[[bool], Figure], path: Path) -> Picture:
    """Write a figure as :func:`save` does, and draw its form for small screens.

    Args:
        draw: makes the figure; for small screens it is called with True.
        path: of the file.
    """
    narrow = BytesIO()
    draw(True).savefig(narrow, dpi=DPI, format="png")
    return Picture(save(draw(False), path), narrow.getvalue())


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, or as what the name says (``.svg``), whole or not at all; makes the
    folder.

    Raises:
        DensError: the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}")
    kind = path.suffix.removeprefix(".") or "png"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(temporary, dpi=DPI, format=kind, bbox_inches="tight", pad_inches=0.05)
        os.replace(temporary, path)
    except OSError as error:
        raise DensError(f"{path} cannot be written: {error}") from None
    return path
