"""Learning curves: loss terms and errors, DeNS structures apart from clean ones."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.figure import Figure

from dens_ocp.results.report.figures.drawing import COLOURS, new_figure, plain, plain_ticks
from dens_ocp.results.report.scalars import Series, smooth


@dataclass(frozen=True)
class Panel:
    """A panel of the picture.

    Attributes:
        title, unit: texts.
        curves: tag and label of each line.
        factor: from the logged unit to ``unit``.
        log: logarithmic axis.
    """

    title: str
    unit: str
    curves: tuple[tuple[str, str], ...]
    factor: float = 1.0
    log: bool = True


ERRORS = (
    Panel(
        "loss terms (weighted)",
        "loss",
        (
            ("train/loss_energy", "energy"),
            ("train/loss_forces", "forces (uncorrupted atoms)"),
            ("train/loss_noise", "noise (corrupted atoms)"),
        ),
    ),
    Panel(
        "force MAE",
        "meV/\u00c5",
        (
            ("train/forces_mae", "train, clean structures"),
            ("train/dens_forces_mae", "train, DeNS structures: uncorrupted atoms"),
            ("val/forces_mae", "validation"),
        ),
        factor=1000,
    ),
    Panel(
        "energy MAE",
        "meV",
        (
            ("train/energy_mae", "train, clean structures"),
            ("train/dens_energy_mae", "train, DeNS structures"),
            ("val/energy_mae", "validation"),
        ),
        factor=1000,
    ),
    Panel(
        "noise MAE of corrupted atoms",
        "\u00c5",
        (("train/dens_noise_mae", "train, DeNS structures"),),
    ),
)
"""Losses and errors."""

SETTINGS = (
    Panel("learning rate", "learning rate", (("train/lr", "learning rate"),)),
    Panel(
        "what is corrupted",
        "share of a batch",
        (
            ("train/dens_structures", "DeNS structures"),
            ("train/dens_corrupted_atoms", "corrupted atoms (of those in the loss)"),
        ),
        log=False,
    ),
)
"""What the run did: its schedule and its corruption."""


def learning_curves(
    runs: dict[str, Series],
    noise_of_zero: float | None = None,
    panels: tuple[Panel, ...] = ERRORS,
    narrow: bool = False,
) -> Figure:
    """Curves over the steps, two panels a row.

    Args:
        runs: logged numbers by name of the run; a second run is drawn dashed. Those of training
            are drawn pale, and their running mean over them.
        noise_of_zero: MAE of predicting no noise, Angstrom; drawn as a line.
        panels: what to draw.
        narrow: one panel a row, for small screens.
    """
    columns = 1 if narrow else 2
    rows = (len(panels) + columns - 1) // columns
    figure, axes = new_figure(rows, columns, (4.4, 3.0 * rows) if narrow else (11, 3.6 * rows))
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        for style, (name, series) in zip(("-", "--"), runs.items(), strict=False):
            for colour, (tag, label) in zip(COLOURS, panel.curves, strict=False):
                if tag not in series:
                    continue
                steps, values = series[tag][0], panel.factor * series[tag][1]
                if tag.startswith("train/") and tag != "train/lr":
                    axis.plot(steps, values, style, color=colour, linewidth=1, alpha=0.25)
                    values = smooth(values)
                axis.plot(
                    steps, values, style, color=colour, linewidth=1.5, markersize=4,
                    marker="o" if tag.startswith("val/") else None,
                    label=f"{label} ({name})" if len(runs) > 1 else label,
                )  # fmt: skip
        if axis.lines and noise_of_zero is not None and "noise MAE" in panel.title:
            axis.axhline(noise_of_zero, color="0.35", linestyle=":", label="no noise predicted")
        axis.set(title=panel.title, xlabel="step", ylabel=panel.unit)
        plain(axis)
        if axis.lines and panel.log:
            axis.set_yscale("log")
            plain_ticks(axis)
        if axis.lines:
            axis.legend(fontsize=8, frameon=False)
        else:
            axis.text(0.5, 0.5, "not logged", ha="center", transform=axis.transAxes, color="0.4")
            axis.set(xticks=[], yticks=[])
    return figure
