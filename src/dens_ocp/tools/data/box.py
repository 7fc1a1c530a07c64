"""Cells of structures that are not periodic in all directions.

fairchem's EquiformerV2 and eSCN repeat the cell in all directions, so images have to be further
away than the model looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dens_ocp.errors import DensError
from dens_ocp.tools.data.frames import Frame


@dataclass(frozen=True)
class Box:
    """An empty cube around structures without periodicity.

    Attributes:
        side: Angstrom.
        extent: of the largest of them along x, y or z, Angstrom.
    """

    side: float
    extent: float

    @property
    def largest_cutoff(self) -> float:
        """How far a model may see, Angstrom, before an atom sees an image."""
        return self.side - self.extent


def fitted_box(frames: Iterable[Frame], box: float | str | None, cutoff: float) -> Box | None:
    """The box of structures without periodicity; None: they get no cell.

    Args:
        frames: those that are converted.
        box: what was asked for; ``auto``: the smallest multiple of 5 Angstrom that will do.
        cutoff: of the model, Angstrom. In a cube with the largest extent of the molecules plus the
            cutoff no atom sees an image.

    Raises:
        DensError: a box that is too small, with one that is enough; frames of both kinds and no
            box; vacuum of less than the cutoff in a direction that is not periodic.
    """
    largest, widest = 0.0, None
    periodic, total, first_periodic, first_other = 0, 0, None, None
    for frame in frames:
        total += 1
        if frame.atoms.pbc.any():
            periodic, first_periodic = periodic + 1, first_periodic or frame
            if not frame.atoms.pbc.all():
                _check_vacuum(frame, cutoff)
            continue
        first_other = first_other or frame
        extent = float(np.ptp(frame.atoms.positions, axis=0).max()) if len(frame.atoms) else 0.0
        if widest is None or extent > largest:
            largest, widest = extent, frame
    if first_periodic is not None and first_other is not None:
        both = (
            f"{periodic} of {total} frames are periodic (first: {first_periodic.where}), "
            f"{total - periodic} are not (first: {first_other.where})"
        )
        if box is None or box == "auto":
            raise DensError(
                f"{both}, and a batch cannot hold both; give --box for those that are not, or "
                "convert them apart"
            )
        print(f"warning: {both}: periodic ones keep their cells, the others get the box")
    if widest is None:
        if isinstance(box, float):
            print(f"--box: {box:g} is not used: all frames are periodic")
        return None
    enough = 5 * float(np.ceil((largest + cutoff) / 5))
    if box == "auto":
        return Box(enough, largest)
    if box is not None and not float(box) >= largest + cutoff:
        raise DensError(
            f"--box: {float(box):g} Angstrom are too few: {widest.where} is {largest:.2f} Angstrom "
            f"long and the model sees {cutoff:g} Angstrom far (--cutoff), so images interact in a "
            f"box of less than {largest + cutoff:.2f} Angstrom; --box {enough:g} is enough"
        )
    return None if box is None else Box(float(box), largest)


def _check_vacuum(frame: Frame, cutoff: float) -> None:
    """Images in directions that are not periodic are further away than the cutoff."""
    cell = frame.atoms.cell.array
    for direction in np.flatnonzero(~frame.atoms.pbc):
        normal = np.cross(cell[direction - 2], cell[direction - 1])
        normal /= np.linalg.norm(normal)
        height = abs(float(cell[direction] @ normal))
        vacuum = height - float(np.ptp(frame.atoms.positions @ normal))
        if vacuum < cutoff:
            raise DensError(
                f"{frame.where} is not periodic along its cell vector {direction + 1} (pbc "
                f"{frame.atoms.pbc.tolist()}), where the cell leaves {max(vacuum, 0):.2f} Angstrom "
                f"of vacuum, and fairchem repeats it in all directions; a model with a cutoff of "
                f"{cutoff:g} Angstrom (--cutoff) needs {cutoff:g}: lengthen the vector, or set pbc"
            )
