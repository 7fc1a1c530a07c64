"""What the 3D viewer shows, as numbers: structures and trajectories of ASE become scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii
from ase.data.colors import jmol_colors

from dens_ocp.data.ase_structures import fixed_atoms, known_result
from dens_ocp.errors import DensError

NOISE, FORCE = "#D55E00", "#0072B2"
"""Colours of arrows, as in the pictures of the report."""
STRETCH = 5
"""Noise is drawn this many times as long, less where arrows would be longer than 5 Angstrom."""
LONGEST_FORCE = 2.0
"""Length in the viewer, Angstrom, of the largest force on a free atom."""
MAX_ATOMS = 1000
"""Larger structures are refused: they make a page slow."""
MAX_FRAMES = 60
"""Of longer trajectories this many frames are shown."""

_MAX_MOVES = 12_000  # positions of moving atoms in all frames after the first: about 200 kB
_LONGEST_NOISE = 5.0  # Angstrom, of an arrow
_PALE = 0.6  # share of white in the colours of fixed atoms
_SHORTEST = 0.01  # Angstrom; shorter arrows are not drawn
_DIGITS = 3  # of positions in Angstrom


@dataclass(frozen=True)
class Arrows:
    """An arrow for each of some atoms.

    Attributes:
        name: for the legend.
        colour: ``#RRGGBB``.
        starts, ends: (n, 3) Angstrom.
    """

    name: str
    colour: str
    starts: np.ndarray
    ends: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A structure or a trajectory.

    Attributes:
        label: text by which it is chosen.
        numbers: (N,) atomic numbers. fixed: (N,) bool.
        cell: (3, 3) Angstrom; zeros without a cell.
        frames: (F, N, 3) positions, Angstrom; F = 1 for a structure.
        steps: (F,) the number of each frame in its trajectory.
        energies: (F,) eV, and max_forces: (F,) largest force on a free atom, eV/Angstrom; NaN
            where not known.
        arrows: drawn with the first frame.
        ghosts: (n, 3) original positions of corrupted atoms, Angstrom. ghost_numbers: (n,) theirs.
    """

    label: str
    numbers: np.ndarray
    fixed: np.ndarray
    cell: np.ndarray
    frames: np.ndarray
    steps: np.ndarray
    energies: np.ndarray
    max_forces: np.ndarray
    arrows: tuple[Arrows, ...] = ()
    ghosts: np.ndarray | None = None
    ghost_numbers: np.ndarray | None = None


def structure_scene(atoms: Atoms, label: str | None = None, stretch: int | None = None) -> Scene:
    """A structure; arrows and original positions come from the arrays of ``dens_ocp.corrupt``.

    Args:
        atoms: with or without the arrays ``corrupted`` (N,) bool, ``noise`` (N, 3) in Angstrom and
            ``original_forces`` (N, 3) in eV/Angstrom.
        label: default: the chemical formula.
        stretch: noise is drawn this many times as long; default: :func:`stretch_of` the longest.

    Raises:
        DensError: more than ``MAX_ATOMS`` atoms, or positions that are not numbers.
    """
    plain = trajectory_scene([atoms], label)
    if "corrupted" not in atoms.arrays:
        return plain
    mask = atoms.arrays["corrupted"].astype(bool)
    noise = atoms.arrays.get("noise", np.zeros((len(atoms), 3)))
    start = (atoms.positions - noise)[mask]
    if stretch is None:
        stretch = stretch_of(float(np.linalg.norm(noise[mask], axis=1).max(initial=0)))
    arrows = [Arrows(noise_label(stretch), NOISE, start, start + stretch * noise[mask])]
    forces = atoms.arrays.get("original_forces")
    if forces is not None:
        longest = largest(forces, plain.fixed)
        drawn = forces[mask] * (LONGEST_FORCE / longest if longest > 0 else 0.0)
        arrows.append(Arrows(force_label(longest), FORCE, start, start + drawn))
    return Scene(
        **{**vars(plain), "arrows": tuple(arrows)} | {
            "ghosts": start, "ghost_numbers": plain.numbers[mask],
        }
    )  # fmt: skip


def trajectory_scene(frames: Sequence[Atoms], label: str | None = None) -> Scene:
    """A trajectory; of a long one, frames at even distances with the first and the last.

    Args:
        frames: the same atoms in the same order. Energies and forces are those that their
            calculators have without a calculation.
        label: default: the chemical formula.

    Raises:
        DensError: no frames, frames of different atoms, more than ``MAX_ATOMS`` atoms, or positions
            that are not numbers.
    """
    if not len(frames):
        raise DensError("viewer: there are no frames")
    first = frames[0]
    if len(first) > MAX_ATOMS:
        raise DensError(f"viewer: {len(first)} atoms; it shows at most {MAX_ATOMS}")
    for number, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, first.numbers):
            raise DensError(f"viewer: frame {number} has other atoms than frame 0")
        if not np.isfinite(frame.positions).all():
            raise DensError(f"viewer: positions of frame {number} are NaN or infinite")
    moving = int((np.ptp([each.positions for each in frames], axis=0) > 0).any(axis=1).sum())
    count = min(len(frames), MAX_FRAMES, max(2, _MAX_MOVES // max(moving, 1)))
    steps = np.linspace(0, len(frames) - 1, count).round().astype(int)
    fixed = fixed_atoms(first)
    known = np.array([_results(frames[step], fixed) for step in steps])
    return Scene(
        label=first.get_chemical_formula() if label is None else label,
        numbers=first.numbers,
        fixed=fixed,
        cell=np.asarray(first.cell),
        frames=np.stack([frames[step].positions for step in steps]),
        steps=steps,
        energies=known[:, 0],
        max_forces=known[:, 1],
    )


def as_json(scene: Scene) -> dict[str, Any]:
    """What ``viewer.js`` reads, for :func:`json.dumps`.

    Positions are integers in units of 0.001 Angstrom. Only atoms that move are in ``moves``, the
    frames after the first one.
    """
    at = _thousandths(scene.frames)
    moving = np.flatnonzero((at != at[0]).any(axis=(0, 2)))
    nothing = np.zeros(0)
    ghosts = nothing if scene.ghosts is None else scene.ghosts
    ghost_numbers = nothing if scene.ghost_numbers is None else scene.ghost_numbers
    return {
        "label": scene.label,
        "elements": scene.numbers.tolist(),
        "fixed": np.flatnonzero(scene.fixed).tolist(),
        "cell": _thousandths(scene.cell).ravel().tolist() if scene.cell.any() else [],
        "positions": at[0].ravel().tolist(),
        "moving": moving.tolist(),
        "moves": [frame[moving].ravel().tolist() for frame in at[1:]],
        "steps": scene.steps.tolist(),
        "energies": [_number(each, 4) for each in scene.energies],
        "maxForces": [_number(each, 4) for each in scene.max_forces],
        "ghosts": _thousandths(ghosts).ravel().tolist(),
        "ghostElements": [int(each) for each in ghost_numbers],
        "arrows": [
            {
                "name": each.name,
                "colour": each.colour,
                "ends": _thousandths(np.concatenate([each.starts, each.ends], 1)[long])
                .ravel()
                .tolist(),
            }
            for each in scene.arrows
            for long in [np.linalg.norm(each.ends - each.starts, axis=1) > _SHORTEST]
        ],
    }


def palette(scenes: Sequence[Scene]) -> dict[str, dict[str, Any]]:
    """Symbol, covalent radius (Angstrom) and colours of the elements of all scenes, by atomic
    number: ``colour`` of free atoms, and ``pale`` of fixed ones."""
    numbers = np.unique(np.concatenate([each.numbers for each in scenes]))
    found = {}
    for number in numbers:
        # jmol's hydrogen is white
        colour = np.array([0.78, 0.84, 0.92]) if number == 1 else jmol_colors[number]
        found[str(number)] = {
            "symbol": chemical_symbols[number],
            "radius": round(float(covalent_radii[number]), 2),
            "colour": _hex(colour),
            "pale": _hex(_PALE + (1 - _PALE) * colour),
        }
    return found


def stretch_of(longest: float) -> int:
    """How many times as long noise is drawn.

    Args:
        longest: the longest vector of noise, Angstrom.

    >>> stretch_of(0.3), stretch_of(1.3), stretch_of(8.0)
    (5, 3, 1)
    """
    return int(np.clip(_LONGEST_NOISE // max(longest, 1e-9), 1, STRETCH))


def noise_label(stretch: int) -> str:
    """What a legend says of the arrows of noise."""
    return "noise" if stretch == 1 else f"noise, {stretch} times as long"


def force_label(longest: float) -> str:
    """What a legend says of the arrows of forces; ``longest`` is in eV/Angstrom."""
    return f"original force ({longest:.2f} eV/Å is {LONGEST_FORCE:g} Å long)"


def largest(forces: np.ndarray, fixed: np.ndarray) -> float:
    """Length of the largest of (N, 3) forces on a free atom, in their unit."""
    return float(np.linalg.norm(forces, axis=1)[~fixed].max(initial=0))


def _results(atoms: Atoms, fixed: np.ndarray) -> tuple[float, float]:
    """Energy and largest force; NaN where the calculator would have to compute them."""
    energy, forces = known_result(atoms, "energy"), known_result(atoms, "forces")
    return (
        np.nan if energy is None else energy,
        np.nan if forces is None else largest(forces, fixed),
    )


def _thousandths(values: Any) -> np.ndarray:
    return np.rint(np.asarray(values, float) * 10**_DIGITS).astype(int)


def _number(value: float, digits: int) -> float | None:
    return round(float(value), digits) if np.isfinite(value) else None


def _hex(colour: np.ndarray) -> str:
    return "#" + "".join(f"{round(255 * float(each)):02x}" for each in colour)
