"""What all pictures share: colours, the look of axes, and how a figure becomes a file."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
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
