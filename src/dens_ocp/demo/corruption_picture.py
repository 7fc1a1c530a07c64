"""A corrupted structure beside the original, as the paper's Fig. 3."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from ase.data.colors import jmol_colors
from ase.utils import rotate
from ase.visualize.plot import plot_atoms
from matplotlib.axes import Axes
from torch_geometric.data import Data

from dens_ocp.config import DeNSConfig
from dens_ocp.corruption.corrupt import corrupt
from dens_ocp.demo.curves import plt, save

SIGMAS = (0.1, 0.3, 0.5)  # Angstrom, as in the paper
_VIEW = "-80x,12y,0z"
_PALE = 0.65  # share of white in the colours of original positions
_RADIUS = 0.85  # in covalent radii
_BEHIND = 1.5  # Angstrom by which these stand farther from the viewer


def draw_corruption(
    path: Path, record: Data, sigmas: Sequence[float] = SIGMAS, r: float = 0.5, seed: int = 0
) -> Path:
    """Write a PNG of two rows: all atoms corrupted (the paper's Fig. 3), and what training does:
    free atoms only, each with probability ``r``. Pale atoms stand where they were originally. Each
    row has the same unit noise in all columns.

    Args:
        path: PNG to write.
        record: S2EF record (``pos``, ``cell``, ``atomic_numbers``, ``fixed``, ``force``).
        sigmas: noise levels, Angstrom.
        r: probability that a free atom is corrupted.
        seed: of the noise.
    """
    rows = (
        ("all atoms", DeNSConfig(p=1, r=1, all_atoms=True)),
        (f"free atoms, r = {r:g}\n(as in training)", DeNSConfig(p=1, r=r)),
    )
    figure, axes = plt.subplots(
        len(rows), 1 + len(sigmas), figsize=(2.9 * (1 + len(sigmas)), 6.4), layout="constrained"
    )
    original = _atoms(record)
    extent = _extent([original])
    for line, (name, options) in zip(axes, rows, strict=True):
        _draw(line[0], original, None, extent)
        line[0].set_title("original", fontsize=11)
        line[0].text(
            -0.06, 0.5, name, rotation=90, ha="center", va="center", fontsize=10,
            transform=line[0].transAxes,
        )  # fmt: skip
        for axis, sigma in zip(line[1:], sigmas, strict=True):
            config = options.model_copy(update={"sigma": sigma})
            corruption = _corruption(record, config, seed)
            moved = original.copy()
            moved.positions += corruption.noise_vec.numpy()
            _draw(axis, moved, corruption.noise_mask.numpy(), extent, original)
            axis.set_title(f"\u03c3 = {sigma:g} \u00c5", fontsize=11)
    return save(figure, path)


def _corruption(record: Data, config: DeNSConfig, seed: int):
    return corrupt(
        pos=record.pos,
        forces=record.force,
        fixed=record.fixed,
        batch=torch.zeros(len(record.pos), dtype=torch.long),
        natoms=torch.tensor([len(record.pos)]),
        config=config,
        generator=torch.Generator().manual_seed(seed),
    )


def _atoms(record: Data) -> Atoms:
    return Atoms(
        record.atomic_numbers.long().numpy(),
        positions=record.pos.numpy().astype(float),
        cell=record.cell[0].numpy(),
        pbc=True,
    )


def most_varied(records: Sequence[Data]) -> Data:
    """The record with most elements; among these, most atoms; among these, the middle one."""
    rank = [(len(record.atomic_numbers.unique()), record.natoms) for record in records]
    best = [record for record, value in zip(records, rank, strict=True) if value == max(rank)]
    return best[len(best) // 2]


def _extent(structures: list[Atoms]) -> np.ndarray:
    """(2, 3) corners of a box around the structures."""
    positions = np.concatenate([atoms.positions for atoms in structures])
    return np.array([positions.min(0) - 0.5, positions.max(0) + 0.5])


def _draw(
    axis: Axes,
    atoms: Atoms,
    corrupted: np.ndarray | None,
    extent: np.ndarray,
    original: Atoms | None = None,
) -> None:
    """Draw ``atoms``, and pale ``original`` where an atom is corrupted.

    Both go into one structure, so that nearer atoms hide farther ones; two invisible atoms at the
    corners of ``extent`` give all panels the same frame.
    """
    everything = atoms.copy()
    colours = [_colour(number) for number in atoms.numbers]
    radii = [_radius(number) for number in atoms.numbers]
    pale = np.zeros(len(atoms), dtype=bool)
    if original is not None and corrupted is not None:
        ghosts = original[corrupted]
        ghosts.positions -= _BEHIND * rotate(_VIEW)[:, 2]
        everything += ghosts
        colours += [_PALE + (1 - _PALE) * _colour(number) for number in ghosts.numbers]
        radii += [_radius(number) for number in ghosts.numbers]
        pale = np.r_[pale, np.ones(len(ghosts), dtype=bool)]
    everything += Atoms("X2", positions=extent)
    colours += [(1.0, 1.0, 1.0)] * 2
    radii += [1e-3] * 2
    plot_atoms(
        everything, axis, rotation=_VIEW, radii=radii, colors=np.array(colours), show_unit_cell=0
    )
    pale_colours = {tuple(np.round(colours[index], 3)) for index in np.flatnonzero(pale)}
    for patch in axis.patches:
        is_pale = tuple(np.round(patch.get_facecolor()[:3], 3)) in pale_colours
        patch.set_linewidth(0.5)
        patch.set_edgecolor("0.6" if is_pale else "0.1")
    axis.set_axis_off()


def _radius(number: int) -> float:
    return _RADIUS * covalent_radii[number]


def _colour(number: int) -> np.ndarray:
    # jmol's hydrogen is white, which has no paler shade
    return np.array([0.78, 0.84, 0.92]) if number == 1 else jmol_colors[number]
