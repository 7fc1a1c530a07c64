"""Corrupted structures beside the original, as the paper's Figures 3 to 5, and as in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.utils import rotate
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from dens_ocp.data.structures import Structure
from dens_ocp.dens.config import DeNSConfig, MultiScaleSigma
from dens_ocp.dens.corruption import corrupt
from dens_ocp.dens.step_plan import Corruption
from dens_ocp.results.report.figures.drawing import new_figure

SIGMAS = (0.1, 0.3, 0.5)  # Angstrom, as in the paper
DISPLACED, FORCE = "#D55E00", "#0072B2"  # colours of arrows
STRETCH = 5
"""Displacements are drawn this many times as long."""
LONGEST_FORCE = 2.0
"""Length on the picture, Angstrom, of the largest force on a free atom."""

_FIXED = np.array([0.97, 0.97, 0.97])  # colour of atoms that are never corrupted
_VIEW = rotate("-80x,12y,0z")  # columns: to the right, up, towards the viewer
_PALE = 0.65  # share of white in the colours of original positions
_MARGIN = 1.8  # Angstrom around the centres of the original atoms, at least
_RIM = 0.1  # Angstrom around the outermost moved atom
_RADIUS = 0.85  # in covalent radii
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
) -> Figure:
    """Two rows: all atoms corrupted (the paper's Fig. 3), and what training does, with arrows.

    Each row has the same unit noise in all columns. Above, pale atoms stand where they were.
    Below, atoms that are never corrupted are white; arrows show the displacement (``STRETCH``
    times as long) and the encoded force of each corrupted
    atom (``LONGEST_FORCE`` is the largest).

    Args:
        shown: a structure with forces.
        sigmas: noise levels, Angstrom.
        config: the run's options; p is taken as 1 and sigma from ``sigmas``. Default: r = 0.5.
        seed: of the noise.
    """
    config = config or DeNSConfig()
    training = config.model_copy(update={"p": 1.0, "enabled": True, "choice": "structure"})
    rows = (
        ("all atoms", DeNSConfig(p=1, r=1, all_atoms=True)),
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
    frame = _frame(shown, [each for line in drawn for each in line])
    width, height = np.ptp(frame, axis=0)
    figure, axes = new_figure(
        len(rows), 1 + len(sigmas),
        (2.7 * (1 + len(sigmas)) + 0.4, len(rows) * (2.6 * height / width + 0.35)),
    )  # fmt: skip
    for line, (name, options), corruptions in zip(axes, rows, drawn, strict=True):
        in_training = options is training
        white = shown.fixed & (in_training and not options.all_atoms)
        for axis, corruption in zip(line, (None, *corruptions), strict=True):
            _draw(axis, shown, corruption, white)
            if in_training and corruption is not None and corruption.noise_mask.any():
                _arrows(axis, shown, corruption)
            axis.set(xlim=frame[:, 0], ylim=frame[:, 1], aspect="equal")
            axis.set_axis_off()
        line[0].text(
            -0.06, 0.5, name, rotation=90, ha="center", va="center", fontsize=10,
            transform=line[0].transAxes,
        )  # fmt: skip
        titles = ("original", *(f"\u03c3 = {sigma:g} \u00c5" for sigma in sigmas))
        for axis, title in zip(line, titles, strict=True):
            axis.set_title(title, fontsize=11)
    return figure


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


def largest_force(shown: Structure) -> float:
    """Length of the largest force on a free atom, eV/Angstrom."""
    return float(np.linalg.norm(shown.forces, axis=1)[shown.free].max(initial=0))


def _radii(shown: Structure) -> np.ndarray:
    return _RADIUS * covalent_radii[shown.atomic_numbers]


def _frame(shown: Structure, corruptions: Sequence[Corruption]) -> np.ndarray:
    """(2, 2): lower left and upper right corner of the picture, Angstrom, with every atom of every
    corrupted copy inside."""
    radii = _radii(shown)[:, None] + _RIM
    copies = [shown.pos, *(shown.pos + each.displacement.numpy() for each in corruptions)]
    at = np.stack(copies) @ _VIEW[:, :2]
    room = np.stack([np.maximum(radii, _MARGIN), *[radii] * len(corruptions)])
    return np.stack([(at - room).min((0, 1)), (at + room).max((0, 1))])


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


def _arrows(axis: Axes, shown: Structure, corruption: Corruption) -> None:
    """Displacements and encoded forces of the corrupted atoms, in front of all atoms."""
    mask, largest = corruption.noise_mask.numpy(), largest_force(shown)
    at = (shown.pos @ _VIEW)[mask, :2]
    for vectors, length, colour in (
        (corruption.displacement.numpy(), STRETCH, DISPLACED),
        (shown.forces, LONGEST_FORCE / largest if largest > 0 else 1.0, FORCE),
    ):
        along = (length * vectors @ _VIEW)[mask, :2]
        arrows = axis.quiver(
            *at.T, *along.T, color=colour, angles="xy", scale_units="xy", scale=1, width=0.012,
            headwidth=3.5, headlength=4, headaxislength=3.5, edgecolor="white", linewidth=0.4,
            zorder=10, clip_on=False,
        )  # fmt: skip
        # matplotlib takes the box of a quiver in data for one in pixels: pictures of 25,000 pixels
        arrows.set_in_layout(False)
        # in its place an invisible line from tip to tip keeps them on the picture
        axis.plot(*(at + along).T, alpha=0, clip_on=False)


def _colours(shown: Structure) -> np.ndarray:
    """(N, 3): jmol's; its hydrogen is white, which has no paler shade."""
    hydrogen = shown.atomic_numbers[:, None] == 1
    return np.where(hydrogen, [0.78, 0.84, 0.92], jmol_colors[shown.atomic_numbers])
