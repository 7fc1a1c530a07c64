"""Loss curves of training runs, from their tensorboard files."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib import ticker

from dens_ocp.errors import DensError

Series = dict[str, tuple[np.ndarray, np.ndarray]]
"""Steps and values by tag (``train/loss_noise``, ``val/forces_mae``)."""

COLOURS = ("#1f4e8c", "#d1603d", "#3c8d5a", "#8a5aa8")


def read_scalars(folder: Path) -> Series:
    """All scalars of the tensorboard event files in ``folder``.

    Raises:
        DensError: no event files there.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    if not list(Path(folder).glob("events.out.tfevents.*")):
        raise DensError(f"{folder} holds no tensorboard files; was the run logged there?")
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    series = {}
    for tag in events.Tags()["scalars"]:
        scalars = events.Scalars(tag)
        series[tag] = (
            np.array([scalar.step for scalar in scalars]),
            np.array([scalar.value for scalar in scalars]),
        )
    return series


_PANELS: tuple[tuple[str, float, str, tuple[tuple[str, str], ...]], ...] = (
    (
        "loss terms (weighted)",
        1.0,
        "loss",
        (
            ("train/loss_energy", "energy"),
            ("train/loss_forces", "forces (uncorrupted atoms)"),
            ("train/loss_noise", "noise (corrupted atoms)"),
        ),
    ),
    (
        "force MAE",
        1000.0,
        "meV/\u00c5",
        (
            ("train/forces_mae", "train, clean structures"),
            ("train/dens_forces_mae", "train, DeNS structures: uncorrupted atoms"),
            ("val/forces_mae", "validation"),
        ),
    ),
    (
        "energy MAE",
        1000.0,
        "meV",
        (
            ("train/energy_mae", "train, clean structures"),
            ("train/dens_energy_mae", "train, DeNS structures"),
            ("val/energy_mae", "validation"),
        ),
    ),
    (
        "noise MAE of corrupted atoms",
        1.0,
        "\u00c5",
        (("train/dens_noise_mae", "train, DeNS structures"),),
    ),
)


def draw_curves(
    path: Path, runs: dict[str, Series], every: int, noise_of_zero: float | None = None
) -> Path:
    """Loss terms and errors over the steps, DeNS structures apart from clean ones.

    Args:
        path: PNG to write.
        runs: scalars by name of the run; a second run is drawn dashed.
        every: the runs' ``--print-every``: the logged values are means over as many steps, of
            which the last of each window is drawn pale, and their running mean over it.
        noise_of_zero: MAE of predicting no noise, Angstrom; drawn as a line.
    """
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.2), layout="constrained")
    for axis, (title, factor, unit, curves) in zip(axes.flat, _PANELS, strict=True):
        for style, (name, series) in zip(("-", "--"), runs.items(), strict=False):
            for colour, (tag, label) in zip(COLOURS, curves, strict=False):
                if tag not in series:
                    continue
                steps, values = _last_of_windows(*series[tag], every, tag)
                suffix = f" ({name})" if len(runs) > 1 else ""
                if not tag.startswith("val/"):
                    axis.plot(steps, factor * values, style, color=colour, linewidth=1, alpha=0.25)
                    values = _smooth(values)
                marker = "o" if tag.startswith("val/") else None
                axis.plot(
                    steps, factor * values, style, color=colour, marker=marker, markersize=4,
                    linewidth=1.5, label=label + suffix,
                )  # fmt: skip
        if noise_of_zero is not None and title.startswith("noise"):
            axis.axhline(noise_of_zero, color="0.5", linestyle=":", label="no noise predicted")
        axis.set(title=title, xlabel="step", ylabel=unit)
        if axis.lines:
            axis.set_yscale("log")
            axis.legend(fontsize=8, frameon=False)
            _plain_ticks(axis)
        else:
            axis.text(0.5, 0.5, "no DeNS", ha="center", transform=axis.transAxes, color="0.5")
        axis.grid(alpha=0.25, which="both", linewidth=0.5)
        axis.spines[["top", "right"]].set_visible(False)
    return save(figure, path)


def _last_of_windows(
    steps: np.ndarray, values: np.ndarray, every: int, tag: str
) -> tuple[np.ndarray, np.ndarray]:
    if tag.startswith("val/"):
        return steps, values
    window = (steps - 1) // every
    last = np.r_[window[1:] != window[:-1], True]
    return steps[last], values[last]


def _smooth(values: np.ndarray, reach: int = 3) -> np.ndarray:
    """Means over each value and up to ``reach`` neighbours on both sides."""
    positions = range(len(values))
    return np.array([values[max(0, at - reach) : at + reach + 1].mean() for at in positions])


def _plain_ticks(axis: plt.Axes) -> None:
    formatter = ticker.FuncFormatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(formatter)
    low, high = axis.get_ylim()
    few = high / low < 30
    axis.yaxis.set_minor_formatter(formatter if few else ticker.NullFormatter())
    if few:
        axis.yaxis.set_minor_locator(ticker.LogLocator(subs=(2, 3, 5)))
    axis.tick_params(axis="y", which="both", labelsize=8)


def save(figure: plt.Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    figure.savefig(temporary, dpi=140, format="png")
    plt.close(figure)
    temporary.replace(path)
    return path

