"""Corrupted structures beside the original, as the paper's Figures 3 to 5, and as in training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.utils import rotate
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle

from dens_ocp.data.structures import Structure
from dens_ocp.dens.config import DeNSConfig, MultiScaleSigma
from dens_ocp.dens.corruption import corrupt
from dens_ocp.dens.step_plan import Corruption
from dens_ocp.results.report.figures.drawing import new_figure
from dens_ocp.results.report.viewer.scenes import (
    FORCE,
    LONGEST_FORCE,
    NOISE,
    force_label,
    largest,
    noise_label,
    stretch_of,
)

SIGMAS = (0.1, 0.3, 0.5)  # Angstrom, as in the paper
ALL_ATOMS = DeNSConfig(p=1, r=1, all_atoms=True)
"""Every atom is corrupted."""

_FIXED = np.array([0.97, 0.97, 0.97])  # colour of atoms that are never corrupted
_VIEW = rotate("-80x,12y,0z")  # columns: to the right, up, towards the viewer
_PALE = 0.65  # share of white in the colours of original positions
_MARGIN = 1.8  # Angstrom around the centres of the original atoms, at least
_RIM = 0.1  # Angstrom around the outermost moved atom
_RADIUS = 0.85  # in covalent radii
_ARROW_WIDTH, _HEAD_WIDTH = 0.012, 3.5  # of the width of a panel; in arrow widths
_BEHIND = 1.5  # Angstrom by which original positions stand farther from the viewer


def sigmas_around(config: DeNSConfig) -> tuple[float, ...]:
    """Noise levels to show for a run, Angstrom: half of its own, its own, three times its own; of
    a schedule the smallest, the middle one (in the logarithm) and the largest.

    >>> sigmas_around(DeNSConfig(sigma=0.1))
    (0.05, 0.1, 0.3)
    """
    if isinstance(config.sigma, MultiScaleSigma):
        low, high = config.sigma.low, config.sigma.high
        return tuple(float(f"{each:.3g}") for each in (low, (low * high) ** 0.5, high))
    return tuple(float(f"{factor * config.sigma:.3g}") for factor in (0.5, 1, 3))


def corruption_gallery(
    shown: Structure,
    sigmas: Sequence[float] = SIGMAS,
    config: DeNSConfig | None = None,
    seed: int = 0,
    narrow: bool = False,
) -> Figure:
    """All atoms corrupted (the paper's Fig. 3), and what training does, with arrows.

    Each of the two rows has the same unit noise in all columns. Above, pale atoms stand where they
    were. Below, atoms that are never corrupted are white; arrows show the noise (see
    :func:`~dens_ocp.results.report.viewer.scenes.stretch_of`) and the encoded force of each
    corrupted atom (``LONGEST_FORCE`` is the largest). All panels have the same limits, with all
    atoms and arrows inside.

    Args:
        shown: a structure with forces.
        sigmas: noise levels, Angstrom.
        config: the run's options; p is taken as 1 and sigma from ``sigmas``. Default: r = 0.5.
        seed: of the noise.
        narrow: two columns in place of two rows, for small screens.
    """
    training = as_in_training(config or DeNSConfig())
    rows = (
        ("all atoms", ALL_ATOMS),
        (
            f"{'all' if training.all_atoms else 'free'} atoms, r = {training.r:g}"
            "\n(as in training)",
            training,
        ),
    )
    drawn = [
        [corrupted(shown, options.model_copy(update={"sigma": sigma}), seed) for sigma in sigmas]
        for _, options in rows
    ]
    stretch = stretch_of(max(float(each.displacement.norm(dim=1).max()) for each in drawn[1]))
    frame = _frame(shown, drawn[0], drawn[1], stretch)
    figure, axes = _panels(1 + len(sigmas), frame, narrow)
    titles = ("original", *(f"\u03c3 = {sigma:g} \u00c5" for sigma in sigmas))
    for line, (name, options), corruptions in zip(axes, rows, drawn, strict=True):
        in_training = options is training
        white = shown.fixed & (in_training and not options.all_atoms)
        for axis, corruption, title in zip(line, (None, *corruptions), titles, strict=True):
            _draw(axis, shown, corruption, white)
            if in_training and corruption is not None and corruption.noise_mask.any():
                _draw_arrows(axis, shown, corruption, stretch)
            axis.set(xlim=frame[:, 0], ylim=frame[:, 1], aspect="equal")
            axis.set_axis_off()
            axis.set_title(title, fontsize=11)
        if narrow:
            line[0].set_title(f"{name}\n\n{titles[0]}", fontsize=11)
        else:
            line[0].text(
                -0.06, 0.5, name, rotation=90, ha="center", va="center", fontsize=10,
                transform=line[0].transAxes,
            )  # fmt: skip
    _legend(figure, shown, stretch, with_fixed=not training.all_atoms)
    return figure


def as_in_training(config: DeNSConfig) -> DeNSConfig:
    """The options of a run with which a structure is always corrupted."""
    return config.model_copy(update={"p": 1.0, "enabled": True, "choice": "structure"})


def corrupted(shown: Structure, config: DeNSConfig, seed: int) -> Corruption:
    """The corruption of one structure."""
    count = len(shown.pos)
    return corrupt(
        pos=torch.as_tensor(shown.pos),
        forces=torch.as_tensor(shown.forces),
        fixed=torch.as_tensor(shown.fixed),
        batch=torch.zeros(count, dtype=torch.long),
        natoms=torch.tensor([count]),
        config=config,
        generator=torch.Generator().manual_seed(seed),
    )


def most_varied(structures: Sequence[Structure]) -> Structure:
    """The one with most elements; among these, most atoms; among these, the middle one."""
    rank = [(len(set(each.atomic_numbers.tolist())), len(each.pos)) for each in structures]
    best = [each for each, value in zip(structures, rank, strict=True) if value == max(rank)]
    return best[len(best) // 2]


def _radii(shown: Structure) -> np.ndarray:
    return _RADIUS * covalent_radii[shown.atomic_numbers]


def _frame(
    shown: Structure, all_moved: Sequence[Corruption], training: Sequence[Corruption], stretch: int
) -> np.ndarray:
    """(2, 2): lower left and upper right corner of the picture, Angstrom, with every atom of every
    corrupted copy and every arrow inside."""
    radii = _radii(shown)[:, None] + _RIM
    corruptions = [*all_moved, *training]
    copies = [shown.pos, *(shown.pos + each.displacement.numpy() for each in corruptions)]
    at = np.stack(copies) @ _VIEW[:, :2]
    room = np.stack([np.maximum(radii, _MARGIN), *[radii] * len(corruptions)])
    low, high = (at - room).min((0, 1)), (at + room).max((0, 1))
    # the head of an arrow is wider than its line
    head = _ARROW_WIDTH * _HEAD_WIDTH / 2 * (high - low)[0]
    for corruption in training:
        for start, along, _ in _arrows(shown, corruption, stretch):
            if len(start):
                low = np.minimum(low, (start + along).min(0) - head)
                high = np.maximum(high, (start + along).max(0) + head)
    return np.stack([low, high])


def _panels(count: int, frame: np.ndarray, narrow: bool) -> tuple[Figure, np.ndarray]:
    """A figure and its (2, ``count``) axes, upright or lying."""
    width, height = np.ptp(frame, axis=0)
    wide = 2.0 if narrow else 2.6  # inches
    high = float(np.clip(wide * height / width, 0.4 * wide, 2 * wide)) + 0.35
    if not narrow:
        return new_figure(2, count, (count * (wide + 0.1) + 0.4, 2 * high + 0.4))
    figure, axes = new_figure(count, 2, (2 * wide + 0.2, count * high + 1.6))
    return figure, axes.T


def _draw(axis: Axes, shown: Structure, corruption: Corruption | None, white: np.ndarray) -> None:
    """Draw the corrupted atoms, and pale ones where they were; nearer atoms hide farther ones."""
    colours = np.where(white[:, None], _FIXED, _colours(shown))
    edges = np.where(white, "0.75", "0.1")
    at, radii = shown.pos @ _VIEW, _radii(shown)
    if corruption is not None:
        mask = corruption.noise_mask.numpy()
        moved = (shown.pos + corruption.displacement.numpy()) @ _VIEW
        at = np.concatenate([moved, at[mask] - [0, 0, _BEHIND]])
        pale = _PALE + (1 - _PALE) * _colours(shown)[mask]
        colours, radii = np.concatenate([colours, pale]), np.concatenate([radii, radii[mask]])
        edges = np.concatenate([edges, np.full(mask.sum(), "0.6")])
    for index in np.argsort(at[:, 2]):
        circle = Circle(
            at[index, :2], radii[index], facecolor=colours[index], edgecolor=edges[index],
            linewidth=0.5,
        )  # fmt: skip
        axis.add_patch(circle)


def _arrows(
    shown: Structure, corruption: Corruption, stretch: int
) -> list[tuple[np.ndarray, np.ndarray, str]]:
    """Start and direction, (n, 2) Angstrom on the picture, and colour of the arrows of corrupted
    atoms: noise and encoded forces."""
    mask, longest = corruption.noise_mask.numpy(), largest(shown.forces, shown.fixed)
    at = (shown.pos @ _VIEW)[mask, :2]
    return [
        (at, (length * vectors @ _VIEW)[mask, :2], colour)
        for vectors, length, colour in (
            (corruption.displacement.numpy(), stretch, NOISE),
            (shown.forces, LONGEST_FORCE / longest if longest > 0 else 1.0, FORCE),
        )
    ]


def _draw_arrows(axis: Axes, shown: Structure, corruption: Corruption, stretch: int) -> None:
    """Noise and encoded forces of the corrupted atoms, in front of all atoms."""
    for at, along, colour in _arrows(shown, corruption, stretch):
        arrows = axis.quiver(
            *at.T, *along.T, color=colour, angles="xy", scale_units="xy", scale=1,
            width=_ARROW_WIDTH, headwidth=_HEAD_WIDTH, headlength=4, headaxislength=3.5,
            edgecolor="white", linewidth=0.4, zorder=10,
        )  # fmt: skip
        # matplotlib takes the box of a quiver in data for one in pixels: pictures of 25,000 pixels
        arrows.set_in_layout(False)
        # in its place an invisible line from tip to tip keeps them on the picture
        axis.plot(*(at + along).T, alpha=0)


def _legend(figure: Figure, shown: Structure, stretch: int, with_fixed: bool) -> None:
    longest = largest(shown.forces, shown.fixed)
    dot: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 8}
    handles = [
        Line2D([], [], color=NOISE, linewidth=2, label=noise_label(stretch)),
        Line2D([], [], color=FORCE, linewidth=2, label=force_label(longest)),
        Line2D([], [], **dot, color="0.85", markeredgecolor="0.6", label="original position"),
    ]
    if with_fixed and shown.fixed.any():
        colours: dict[str, Any] = {"color": _FIXED, "markeredgecolor": "0.6"}
        handles.append(Line2D([], [], **dot, **colours, label="fixed atom, never corrupted"))
    inches = figure.get_size_inches()[0]
    columns = 1 if inches < 5 else 2 if inches < 9.5 else len(handles)
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns,
        fontsize=10, frameon=False, columnspacing=1.5,
    )  # fmt: skip


def _colours(shown: Structure) -> np.ndarray:
    """(N, 3): jmol's; its hydrogen is white, which has no paler shade."""
    hydrogen = shown.atomic_numbers[:, None] == 1
    return np.where(hydrogen, [0.78, 0.84, 0.92], jmol_colors[shown.atomic_numbers])
