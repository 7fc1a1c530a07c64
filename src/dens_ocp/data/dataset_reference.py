"""``dataset.json`` of ``dens-ocp data``: what it subtracted from energies, how large its boxes are.

The labels of such a data set are total energies less a constant for each element. Training,
validation, predictions and relaxations are of these labels; in ASE an energy is a total energy, to
which a calculator adds the constants again.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dens_ocp.errors import DensError

if TYPE_CHECKING:
    import torch

DESCRIPTION = "dataset.json"
"""Beside the folders ``train``, ``val`` and ``test`` of a converted data set."""
LARGEST_CUTOFF = "box_is_enough_for_a_cutoff_of_Angstrom"
WRITTEN_BY = "dens-ocp data"
CHECKPOINT_ENTRY = "energy_reference"


Reference = dict[int, float]
"""eV by atomic number."""


def energies(reference: Reference, batch: Any) -> torch.Tensor:
    """(B,) float64, eV: what was subtracted from the structures of a batch.

    Elements without a coefficient get 0, and a warning the first time.

    Args:
        reference: gets these elements.
        batch: with ``atomic_numbers`` (N,) and ``batch`` (N,).
    """
    import torch  # `dens-ocp data --help` reads this module, and needs neither
    from ase.data import chemical_symbols

    numbers = batch.atomic_numbers.long().cpu()
    if unknown := sorted(set(numbers.tolist()) - reference.keys()):
        reference.update(dict.fromkeys(unknown, 0.0))
        logging.warning(
            "%s: the training set does not have this element, so it has no reference energy; the "
            "predicted energy is not a total energy",
            ", ".join(chemical_symbols[number] for number in unknown),
        )
    table = torch.zeros(max(reference) + 1, dtype=torch.float64)
    table[list(reference)] = torch.tensor(list(reference.values()), dtype=torch.float64)
    total = torch.zeros(batch.natoms.numel(), dtype=torch.float64)
    return total.index_add_(0, batch.batch.cpu(), table[numbers])


def beside(src: Any) -> Reference | None:
    """The reference of the data set whose LMDB ``src`` (file or folder) is one split.

    Returns:
        None: there is no ``dataset.json`` of ours, or nothing was subtracted.
    """
    if isinstance(src, (list, tuple)) and len(src) == 1:
        src = src[0]
    if not src or not isinstance(src, (str, Path)):
        return None
    described = _description(Path(src))
    if described.get("written_by") != WRITTEN_BY:
        return None
    by_symbol = (described.get("energy") or {}).get("reference_eV") or {}
    from ase.data import atomic_numbers

    return {atomic_numbers[name]: float(value) for name, value in by_symbol.items()} or None


def _description(src: Path) -> dict[str, Any]:
    """Of the data set of which ``src`` is a folder or a file; nothing where there is none."""
    for folder in [src, *src.parents][:3]:
        try:
            described = json.loads((folder / DESCRIPTION).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(described, dict):
            return described
    return {}


def of_checkpoint(checkpoint: Mapping[str, Any]) -> Reference | None:
    """What stands in a checkpoint; of an older one, what lies beside its training set.

    Args:
        checkpoint: as read from its file (``OCPCalculator`` deletes ``config.dataset.src``).
    """
    if CHECKPOINT_ENTRY in checkpoint:
        return dict(checkpoint[CHECKPOINT_ENTRY] or {}) or None
    dataset = (checkpoint.get("config") or {}).get("dataset")
    return beside(dataset.get("src")) if isinstance(dataset, Mapping) else None


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
    described = _description(Path(src))
    largest, box = described.get(LARGEST_CUTOFF), described.get("box_Angstrom")
    # rounding of a cutoff that fits exactly
    if isinstance(largest, (int, float)) and cutoff > largest + 1e-6:
        raise DensError(
            f"{where}: {src} holds structures in an empty box of {box:g} Angstrom, in which a "
            f"model with a cutoff of more than {largest:.2f} Angstrom sees their periodic "
            f"images, and this model has a cutoff of {cutoff:g} (max_radius or cutoff); convert "
            f"them with --cutoff {cutoff:g}, or take a smaller cutoff"
        )
