"""Dot plots of errors by element, adsorbate, surface or tag, a dot per split."""

from __future__ import annotations

from collections.abc import Mapping

from ase.data import atomic_numbers
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dens_ocp.results.report.breakdown import KINDS, Breakdown, Group
from dens_ocp.results.report.figures.drawing import COLOURS, MARKERS, new_figure, plain

SHOWN = 20
"""So many groups of a kind are drawn, the most frequent ones."""

FEW = 10
"""Dots of fewer structures or atoms are hollow."""


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


def element_errors(splits: Mapping[str, Breakdown]) -> Figure:
    """Force MAE of each element's atoms above, energy MAE of structures with it below."""
    names = keys(splits, "element")
    figure, axes = new_figure(2, 1, (max(7.0, 0.3 * len(names) + 2), 6.0), sharex=True)
    for axis, attribute, unit in _measures(axes[:, 0]):
        _dots(axis, splits, "element", names, attribute, upright=True)
        axis.set_ylabel(unit)
    axes[1, 0].set_xticks(range(len(names)), names)
    axes[1, 0].set_xlim(-0.7, len(names) - 0.3)
    _legend(axes[0, 0])
    return figure


def group_errors(splits: Mapping[str, Breakdown], kind: str) -> Figure:
    """Energy and force MAE by adsorbate, surface or tag, one line each, the most frequent first."""
    assert kind in KINDS
    names = keys(splits, kind)[:SHOWN]
    columns = 1 if kind == "tag" else 2
    figure, axes = new_figure(
        1, columns, (5.2 * columns + 0.6, 0.27 * len(names) + 1.4), sharey=True
    )
    for axis, attribute, unit in _measures(axes[0]):
        _dots(axis, splits, kind, names, attribute, upright=False)
        axis.set_xlabel(unit)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].set_ylim(len(names) - 0.4, -0.6)
    _legend(axes[0, 0])
    return figure


def _legend(axis: Axes) -> None:
    """Above the picture, where it hides nothing."""
    axis.legend(
        fontsize=8, frameon=False, ncols=4, loc="lower left", bbox_to_anchor=(0.0, 1.0),
        borderaxespad=0.2,
    )  # fmt: skip


def _measures(axes) -> list[tuple[Axes, str, str]]:
    return list(
        zip(axes, ("force_mae", "energy_mae"), ("force MAE (meV/\u00c5)", "energy MAE (meV)"),
            strict=False)
    )  # fmt: skip


def _dots(
    axis: Axes,
    splits: Mapping[str, Breakdown],
    kind: str,
    names: list[str],
    attribute: str,
    upright: bool,
) -> None:
    number = len(splits)
    for index, (split, breakdown) in enumerate(splits.items()):
        shift = 0.0 if number == 1 else 0.4 * (index / (number - 1) - 0.5)
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        for few in (False, True):
            dots = [
                (place + shift, getattr(group, attribute))
                for place, name in enumerate(names)
                if (group := breakdown.groups[kind].get(name)) is not None
                and getattr(group, attribute) is not None
                and _is_few(group, attribute) == few
            ]
            at, values = zip(*dots, strict=True) if dots else ((), ())
            across = (at, values) if upright else (values, at)
            axis.plot(
                *across, marker, color=colour, markersize=4.5, linestyle="none",
                markerfacecolor="white" if few else colour, label=None if few else split,
            )  # fmt: skip
    plain(axis)
    (axis.set_ylim if upright else axis.set_xlim)(0, None)


def _is_few(group: Group, attribute: str) -> bool:
    return (group.atoms if attribute == "force_mae" else group.structures) < FEW
