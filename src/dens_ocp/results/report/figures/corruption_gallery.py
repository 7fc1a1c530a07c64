"""Corrupted structures beside the original, as the paper's Figures 3 to 5, and as in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.utils import rotate
from ase.visualize.plot import Matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
_VIEW = "-80x,12y,0z"
_PALE = 0.65  # share of white in the colours of original positions
_MARGIN = 1.8  # Angstrom around the centres of the original atoms, at least
_RIM = 0.1  # Angstrom around the outermost moved atom
_RADIUS = 0.85  # in covalent radii
_BEHIND = 1.5  # Angstrom by which these stand farther from the viewer


@dataclass(frozen=True)
class _Look:
    """How a row is drawn."""

    grey: np.ndarray  # (N,) bool: atoms without colour
    force_scale: float | None  # Angstrom per eV/Angstrom; None: no arrows


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
    original = _atoms(shown)
    drawn = [
        [corrupted(shown, options.model_copy(update={"sigma": sigma}), seed) for sigma in sigmas]
        for _, options in rows
    ]
    margins = _margins(original, [each for line in drawn for each in line])
    width, height = np.ptp(original.positions @ rotate(_VIEW), axis=0)[:2] + margins.sum(0)
    figure, axes = new_figure(
        len(rows), 1 + len(sigmas),
        (2.7 * (1 + len(sigmas)) + 0.4, len(rows) * (2.6 * height / width + 0.35)),
    )  # fmt: skip
    for line, (name, options), corruptions in zip(axes, rows, drawn, strict=True):
        in_training = options is training
        look = _Look(
            grey=shown.fixed & (in_training and not options.all_atoms),
            force_scale=_force_scale(shown) if in_training else None,
        )
        _draw(line[0], original, None, look, margins)
        line[0].set_title("original", fontsize=11)
        line[0].text(
            -0.06, 0.5, name, rotation=90, ha="center", va="center", fontsize=10,
            transform=line[0].transAxes,
        )  # fmt: skip
        for axis, sigma, corruption in zip(line[1:], sigmas, corruptions, strict=True):
            _draw(axis, original, corruption, look, margins, shown.forces)
            axis.set_title(f"\u03c3 = {sigma:g} \u00c5", fontsize=11)
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


def _atoms(shown: Structure) -> Atoms:
    periodic = bool(shown.cell.any())
    positions = shown.pos.astype(float)
    return Atoms(shown.atomic_numbers, positions=positions, cell=shown.cell, pbc=periodic)


def largest_force(shown: Structure) -> float:
    """Length of the largest force on a free atom, eV/Angstrom."""
    return float(np.linalg.norm(shown.forces, axis=1)[shown.free].max(initial=0))


def _force_scale(shown: Structure) -> float:
    largest = largest_force(shown)
    return LONGEST_FORCE / largest if largest > 0 else 1.0


def _margins(original: Atoms, corruptions: Sequence[Corruption]) -> np.ndarray:
    """(2, 2): room below and above (rows) the centres of the original atoms, in x and y (columns)
    of the picture, Angstrom, so that every atom of every corrupted copy is on it."""
    view = rotate(_VIEW)[:, :2]
    radii = np.array([_radius(number) for number in original.numbers])[:, None] + _RIM
    at = original.positions @ view
    room = np.maximum(radii, _MARGIN)
    low, high = (at - room).min(0), (at + room).max(0)
    for each in corruptions:
        moved = (original.positions + each.displacement.numpy()) @ view
        low = np.minimum(low, (moved - radii).min(0))
        high = np.maximum(high, (moved + radii).max(0))
    return np.stack([at.min(0) - low, high - at.max(0)])


def _draw(
    axis: Axes,
    original: Atoms,
    corruption: Corruption | None,
    look: _Look,
    margins: np.ndarray,
    forces: np.ndarray | None = None,
) -> None:
    """Draw the corrupted atoms, and pale ones where they were, or arrows.

    Both go into one structure, so that nearer atoms hide farther ones. The frame is that of the
    original with ``margins`` of :func:`_margins`.
    """
    everything = original.copy()
    colours = [
        _FIXED if grey else _colour(number)
        for number, grey in zip(original.numbers, look.grey, strict=True)
    ]
    radii = [_radius(number) for number in original.numbers]
    moved, mask = np.zeros_like(original.positions), np.zeros(len(original), dtype=bool)
    if corruption is not None:
        moved, mask = corruption.displacement.numpy(), corruption.noise_mask.numpy()
        everything.positions += moved
    pale = np.zeros(len(everything), dtype=bool)
    if corruption is not None:
        ghosts = original[mask]
        ghosts.positions -= _BEHIND * rotate(_VIEW)[:, 2]
        everything += ghosts
        colours += [_PALE + (1 - _PALE) * _colour(number) for number in ghosts.numbers]
        radii += [_radius(number) for number in ghosts.numbers]
        pale = np.r_[pale, np.ones(len(ghosts), dtype=bool)]
    drawn = Matplotlib(
        everything, axis, rotation=_VIEW, radii=radii, colors=np.array(colours), show_unit_cell=0
    )
    drawn.write()
    at = drawn.to_image_plane_positions(original.positions)
    (left, low), (right, high) = at.min(0)[:2] - margins[0], at.max(0)[:2] + margins[1]
    axis.set(xlim=(left, right), ylim=(low, high))
    pale_colours = {tuple(np.round(colours[index], 3)) for index in np.flatnonzero(pale)}
    for patch in axis.patches:
        is_pale = tuple(np.round(patch.get_facecolor()[:3], 3)) in pale_colours
        patch.set_linewidth(0.5)
        is_fixed = np.allclose(patch.get_facecolor()[:3], _FIXED, atol=0.01)
        patch.set_edgecolor("0.6" if is_pale else "0.75" if is_fixed else "0.1")
    axis.set_axis_off()
    if look.force_scale is not None and mask.any():
        start = original.positions[mask]
        _arrows(axis, drawn, start, STRETCH * moved[mask], DISPLACED)
        _arrows(axis, drawn, start, look.force_scale * forces[mask], FORCE)


def _arrows(axis: Axes, drawn: Matplotlib, start: np.ndarray, vectors: np.ndarray, colour: str):
    """Arrows from ``start`` (n, 3) along ``vectors`` (n, 3), in front of the atoms."""
    at = drawn.to_image_plane_positions(start)[:, :2]
    along = drawn.to_image_plane_positions(start + vectors)[:, :2] - at
    arrows = axis.quiver(
        *at.T, *along.T, color=colour, angles="xy", scale_units="xy", scale=1, width=0.012,
        headwidth=3.5, headlength=4, headaxislength=3.5, edgecolor="white", linewidth=0.4,
        zorder=10, clip_on=False,
    )  # fmt: skip
    # matplotlib takes the box of a quiver in data for one in pixels: pictures of 25,000 pixels
    arrows.set_in_layout(False)
    # in its place an invisible line from tip to tip keeps them on the picture
    axis.plot(*(at + along).T, alpha=0, clip_on=False)


def _radius(number: int) -> float:
    return _RADIUS * covalent_radii[number]


def _colour(number: int) -> np.ndarray:
    # jmol's hydrogen is white, which has no paler shade
    return np.array([0.78, 0.84, 0.92]) if number == 1 else jmol_colors[number]
