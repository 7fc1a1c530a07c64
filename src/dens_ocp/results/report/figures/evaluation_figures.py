"""Pictures of an evaluation: parity, errors by the length of the force and by what structures are
made of, relaxations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from dens_ocp.results.report.breakdown import Breakdown
from dens_ocp.results.report.figures.drawing import (
    COLOURS,
    DENSITY_FROM,
    MARKERS,
    new_figure,
    plain,
    plain_ticks,
)
from dens_ocp.results.report.relaxation_files import Relaxations

SHOWN = 20
"""So many groups of a kind are drawn, the most frequent ones."""

FEW = 10
"""Dots of fewer structures or atoms are hollow."""

_LINEAR = 0.3  # eV/Angstrom; forces beyond it on a logarithmic scale
_TICKS = (0.3, 1, 3, 10, 30, 100)
_FEW = 5  # atoms in a bin of force_magnitude below which it is not drawn
_DASHES = ("-", "--", ":")
_MEASURES = (
    ("force_mae", "atoms", "force MAE (meV/\u00c5)"),
    ("energy_mae", "structures", "energy MAE (meV)"),
)  # attributes of a group: the error, and of how many


@dataclass(frozen=True)
class Parity:
    """What is drawn of a split, and its errors.

    Attributes:
        energies: (n, 2) true and predicted, eV.
        forces: (m, 2) true and predicted components on free atoms, eV/Angstrom.
        energy_mae: meV, or None without energies. force_mae: meV/Angstrom, likewise.
    """

    energies: np.ndarray
    forces: np.ndarray
    energy_mae: float | None
    force_mae: float | None


def parity(splits: Mapping[str, Parity], label: str = "DFT", narrow: bool = False) -> Figure:
    """Energies above, force components below, a column per split.

    Args:
        splits: by name.
        label: where the true values come from.
        narrow: a row per split, for small screens.
    """
    count = len(splits)
    if narrow:
        figure, axes = new_figure(count, 2, (4.6, 2.5 * count))
        axes = axes.T
    else:
        figure, axes = new_figure(2, count, (3.2 * count + 0.6, 6.6))
    title_size, size = (9, 8) if narrow else (10, 10)
    energy_range = _range([each.energies for each in splits.values()])
    for column, (name, each) in enumerate(splits.items()):
        above, below = axes[:, column]
        title = "no energy labels" if each.energy_mae is None else (
            f"energy MAE {each.energy_mae:.0f} meV"
        )  # fmt: skip
        _scatter(above, each.energies, energy_range, COLOURS[0], size=12)
        above.set_title(f"{name}\n{title}", fontsize=title_size)
        above.set_xlabel(f"{label} energy (eV)", fontsize=size)

        title = "no force labels" if each.force_mae is None else (
            f"force MAE {each.force_mae:.0f} meV/\u00c5"
        )  # fmt: skip
        limit = max(map(abs, _range([each.forces[:, :1]])))
        _scatter(below, _bent(each.forces), (-_bent(limit), _bent(limit)), COLOURS[1], size=5)
        below.set_title(title, fontsize=title_size)
        below.set_xlabel(f"{label} force component (eV/\u00c5)", fontsize=size)
        _force_ticks(below, limit)
    for column in range(count if narrow else 1):
        axes[0, column].set_ylabel("predicted (eV)", fontsize=size)
        axes[1, column].set_ylabel("predicted (eV/\u00c5)", fontsize=size)
    return figure


def _range(values: Sequence[np.ndarray]) -> tuple[float, float]:
    everything = np.concatenate([np.ravel(each) for each in values])
    if not len(everything):
        return -1.0, 1.0
    margin = 0.05 * float(np.ptp(everything)) or 1.0
    return float(everything.min()) - margin, float(everything.max()) + margin


def _scatter(
    axis: Axes, pairs: np.ndarray, limits: tuple[float, float], colour: str, size: float
) -> None:
    axis.plot(limits, limits, color="0.5", linewidth=0.8, zorder=0)
    x, y = np.clip(pairs, *limits).T  # far off predictions lie on the rim, and set no range
    if len(pairs) <= DENSITY_FROM:
        axis.scatter(x, y, s=size, color=colour, alpha=0.45, linewidths=0)
    else:
        axis.hexbin(
            x, y, gridsize=70, bins="log", cmap="Blues", mincnt=1, linewidths=0.1,
            extent=(*limits, *limits),
        )  # fmt: skip
        axis.plot(limits, limits, color=COLOURS[1], linewidth=0.8)
    axis.set(xlim=limits, ylim=limits, aspect="equal")
    plain(axis)


def _bent(force: np.ndarray | float) -> np.ndarray | float:
    """Most forces are near zero and a few are large: linear up to 0.3 eV/A, then logarithmic."""
    scaled = np.abs(force) / _LINEAR
    return np.sign(force) * np.where(scaled <= 1, scaled, 1 + np.log(np.maximum(scaled, 1)))


def _force_ticks(axis: Axes, limit: float) -> None:
    ticks = [tick for tick in _TICKS if tick <= limit]
    ticks = [-tick for tick in reversed(ticks)] + [0] + ticks
    for which in (axis.xaxis, axis.yaxis):
        which.set_ticks([float(_bent(tick)) for tick in ticks], [f"{tick:g}" for tick in ticks])
        which.set_minor_locator(NullLocator())


def binned(breakdown: Breakdown, at_least: int = 1) -> np.ndarray:
    """(bins, 3): mean length of the true force, mean length of the error (eV/Angstrom), atoms; of
    the bins with ``at_least`` so many atoms."""
    number, true, wrong = breakdown.magnitude.T
    full = number >= max(at_least, 1)
    return np.stack([true[full] / number[full], wrong[full] / number[full], number[full]], 1)


def force_magnitude(splits: Mapping[str, Breakdown], narrow: bool = False) -> Figure:
    """Mean length of the force error by the length of the true force, and how many atoms there are.

    Args:
        splits: by name.
        narrow: panels below each other, for small screens.
    """
    figure, axes = new_figure(2, 1, (4.4, 6.8)) if narrow else new_figure(1, 2, (11, 4.2))
    error, count = axes.flat
    ends = []
    for index, (split, breakdown) in enumerate(splits.items()):
        line = binned(breakdown, _FEW)
        line = line[line[:, 0] > 0]
        if not len(line):
            continue
        style = {**_style(index), "markersize": 4, "linewidth": 1.2, "label": split}
        error.plot(1000 * line[:, 0], 1000 * line[:, 1], **style)
        count.plot(1000 * line[:, 0], 100 * line[:, 2] / line[:, 2].sum(), **style)
        ends += [1000 * line[0, 0], 1000 * line[-1, 0]]
    if ends:
        ends = [min(ends), max(ends)]
        error.plot(ends, ends, color="0.35", linestyle=":", label="zero predicted")
        for axis in (error, count):
            axis.set_xscale("log")
        error.set_yscale("log")
    error.set(xlabel="length of the true force (meV/\u00c5)", ylabel="mean error (meV/\u00c5)")
    count.set(xlabel="length of the true force (meV/\u00c5)", ylabel="share of free atoms (%)")
    for axis in (error, count):
        plain(axis)
    error.legend(fontsize=8, frameon=False)
    return figure


def keys(splits: Mapping[str, Breakdown], kind: str) -> list[str]:
    """Groups of all splits: elements by atomic number, tags in their order, others by frequency."""
    count: dict[str, int] = {}
    for each in splits.values():
        for key, group in each.groups[kind].items():
            count[key] = count.get(key, 0) + max(group.structures, group.atoms)
    if kind == "element":
        return sorted(count, key=atomic_numbers.__getitem__)
    if kind == "tag":
        return sorted(count, key=lambda key: key.rpartition("tag")[2])
    return sorted(count, key=lambda key: (-count[key], key))


def group_errors(splits: Mapping[str, Breakdown], kind: str, narrow: bool = False) -> Figure:
    """Energy and force MAE of the groups of a kind, a colour and shape per split.

    Elements stand side by side: the force MAE of their atoms above, the energy MAE of structures
    with them below. Adsorbates, surfaces and tags have a line each, the most frequent first. With
    ``narrow``, for small screens, elements have a line each, too, and panels are below each other.
    """
    upright = kind == "element" and not narrow
    names = keys(splits, kind)[: None if kind == "element" else SHOWN]
    measures = _MEASURES[:1] if kind == "tag" else _MEASURES
    if upright:
        size = (max(7.0, 0.3 * len(names) + 2), 6.0)
        figure, axes = new_figure(len(measures), 1, size, sharex=True)
        axes[-1, 0].set_xticks(range(len(names)), names)
        axes[-1, 0].set_xlim(-0.7, len(names) - 0.3)
    else:
        high = 0.27 * len(names) + 1.4
        if narrow:
            size = (4.4, (high - 0.4) * len(measures) + 0.4)
            figure, axes = new_figure(len(measures), 1, size, sharey=True)
        else:
            size = (5.2 * len(measures) + 0.6, high)
            figure, axes = new_figure(1, len(measures), size, sharey=True)
        axes[0, 0].set_yticks(range(len(names)), names)
        axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    for axis, (mae, number, title) in zip(axes.flat, measures, strict=True):
        for index, (split, breakdown) in enumerate(splits.items()):
            shift = 0.0 if len(splits) == 1 else 0.4 * (index / (len(splits) - 1) - 0.5)
            found = [(place, breakdown.groups[kind].get(name)) for place, name in enumerate(names)]
            for few in (False, True):
                dots = [
                    (place + shift, getattr(group, mae))
                    for place, group in found
                    if group and getattr(group, number) and (getattr(group, number) < FEW) == few
                ]
                at, values = zip(*dots, strict=True) if dots else ((), ())
                style = _style(index)
                axis.plot(
                    *((at, values) if upright else (values, at)), **style, linestyle="none",
                    markersize=4.5, markerfacecolor="white" if few else style["color"],
                    label=None if few else split,
                )  # fmt: skip
        plain(axis)
        (axis.set_ylim if upright else axis.set_xlim)(0, None)
        (axis.set_ylabel if upright else axis.set_xlabel)(title)
    axes[0, 0].legend(  # above the picture, where it hides nothing
        fontsize=8, frameon=False, ncols=2 if narrow else 4, loc="lower left",
        bbox_to_anchor=(0.0, 1.0), borderaxespad=0.2,
    )  # fmt: skip
    return figure


def _style(index: int) -> dict[str, str]:
    """Colour and shape of a split."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def relaxation_traces(
    splits: Mapping[str, Relaxations], fmax: float | None, narrow: bool = False
) -> Figure:
    """Predicted energy above, largest force below, against the step; a column per split.

    Energies are drawn from the labelled energy of the relaxed structure, which is the line at
    zero; where there is none, from the last frame's.

    Args:
        splits: by name.
        fmax: where relaxations end, eV/Angstrom; drawn as a line.
        narrow: a row per split, for small screens.
    """
    count = len(splits)
    if narrow:
        figure, axes = new_figure(count, 2, (4.6, 2.6 * count), sharex="row", sharey="col")
        axes = axes.T
    else:
        figure, axes = new_figure(2, count, (3.2 * count + 0.8, 5.6), sharex="col", sharey="row")
    size = 8 if narrow else 10
    for column, (split, done) in enumerate(splits.items()):
        above, below = axes[:, column]
        for index, trace in enumerate(done.traces):
            style = {
                "color": COLOURS[index % len(COLOURS)],
                "linestyle": _DASHES[index // len(COLOURS) % len(_DASHES)],
                "linewidth": 1.2,
            }
            zero = trace.energies[-1] if trace.label is None else trace.label
            steps = np.arange(len(trace.energies))
            above.plot(steps, trace.energies - zero, label=trace.sid, **style)
            above.plot(steps[-1], trace.energies[-1] - zero, ".", color=style["color"])
            forces = np.maximum(trace.max_forces, 1e-4)
            below.plot(steps, forces, **style)
            below.plot(steps[-1], forces[-1], ".", color=style["color"])
        above.axhline(0, color="0.25", linewidth=1, linestyle=(0, (1, 1)))
        title = f"{done.systems} systems"
        if done.energy_mae is not None:
            title = f"energy MAE {done.energy_mae:.0f} meV"
        above.set_title(f"{split}\n{title}", fontsize=9 if narrow else 10)
        below.set(yscale="log")
        for axis in (above, below) if narrow else (below,):
            axis.set_xlabel("step", fontsize=size)
        last = max(len(trace.energies) - 1 for trace in done.traces)
        below.set_xlim(-0.04 * max(last, 1), 1.04 * max(last, 1))
        below.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        if fmax is not None:
            below.axhline(fmax, color="0.25", linewidth=1, linestyle=(0, (1, 1)))
        for axis in (above, below):
            plain(axis)
    for axis in axes[1]:
        plain_ticks(axis)
    labelled = {trace.label is not None for each in splits.values() for trace in each.traces}
    zero = {(True,): "label", (False,): "last frame"}.get(tuple(labelled), "label or last frame")
    for column in range(count if narrow else 1):
        axes[0, column].set_ylabel(f"energy \u2212 {zero} (eV)", fontsize=size)
        axes[1, column].set_ylabel("largest force (eV/\u00c5)", fontsize=size)
    return figure
