"""Empty boxes of ``dens-ocp data``: are they large enough for a model?"""

from __future__ import annotations

import json
import os
from pathlib import Path

from dens_ocp.errors import DensError

DESCRIPTION = "dataset.json"
"""Beside the folders ``train``, ``val`` and ``test`` of a converted data set."""
LARGEST_CUTOFF = "box_is_enough_for_a_cutoff_of_Angstrom"


def check_box(src: object, cutoff: float | None, where: str) -> None:
    """Make sure that no atom of a molecule in a box sees an image.

    Args:
        src: of a data set: folder or file. Only what ``dens-ocp data`` wrote says what its boxes
            are enough for; others pass.
        cutoff: how far the model sees across the boundaries of the box, Angstrom; None: it does
            not.
        where: the config section, for messages.

    Raises:
        DensError: the cutoff is larger than the box allows.
    """
    if cutoff is None or not isinstance(src, (str, os.PathLike)):
        return
    path = Path(src)
    folder = path.parent if path.is_file() else path
    try:
        described = json.loads((folder.parent / DESCRIPTION).read_text())
        largest, box = described.get(LARGEST_CUTOFF), described.get("box_Angstrom")
    except (OSError, ValueError, AttributeError):
        return
    # rounding of a cutoff that fits exactly
    if isinstance(largest, (int, float)) and cutoff > largest + 1e-6:
        raise DensError(
            f"{where}: {path} holds structures in an empty box of {box:g} Angstrom, in which a "
            f"model that sees more than {largest:.2f} Angstrom far sees their images, and this "
            f"model sees {cutoff:g} far (max_radius or cutoff); convert them with --cutoff "
            f"{cutoff:g}, or take a smaller cutoff"
        )
