"""What is subtracted from total energies before they are stored.

fairchem's batches hold energies in float32, whose numbers near 17,000 eV (aspirin) are 2 meV apart,
about as much as a good model's error. So the large constant part goes away here, in float64, and
not in fairchem's normalizer or element references, which come after the rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols


class EnergyReference(NamedTuple):
    """A constant for each element, eV.

    Attributes:
        kind: ``linear`` or ``none``.
        coefficients: eV by atomic number, of the elements of the training set.
        mean: eV, of the training set, if all of its structures have the same composition: what is
            subtracted then, however it is dealt out to the elements.
        warning: the training frames do not say how the energy is dealt out to the elements.
    """

    kind: str
    coefficients: dict[int, float]
    mean: float | None = None
    warning: str | None = None

    def of(self, numbers: np.ndarray) -> float:
        """The reference energy of a structure, eV; elements without a coefficient have 0."""
        return float(sum(self.coefficients.get(number, 0.0) for number in numbers.tolist()))

    def by_symbol(self) -> dict[str, float]:
        """Coefficients by chemical symbol, eV."""
        return {chemical_symbols[number]: value for number, value in self.coefficients.items()}


def fit(kind: str, numbers: Sequence[np.ndarray], energies: np.ndarray) -> EnergyReference:
    """The reference of a training set.

    ``linear`` is the least-squares fit of energies by numbers of atoms of each element. For frames
    of one molecule it gives their mean energy. If several fit (fewer compositions than elements),
    it is the one nearest to the same energy for every atom, with a warning: for other compositions
    it is a guess.

    Args:
        kind: ``linear`` or ``none``.
        numbers: S arrays of atomic numbers.
        energies: (S,) float64, eV.
    """
    if kind == "none":
        return EnergyReference(kind, {})
    elements = np.unique(np.concatenate(numbers))
    counts = np.array([(each[:, None] == elements).sum(axis=0) for each in numbers], dtype=float)
    same = bool((counts == counts[0]).all())
    rank, warning, alike = int(np.linalg.matrix_rank(counts)), None, 0.0
    if rank < len(elements) and not same:
        alike = float(energies.sum() / counts.sum())
        warning = (
            f"the linear energy reference of {len(elements)} elements is fitted to "
            f"{len(numbers)} training frames with {rank} independent compositions, so it is only "
            "a guess for other compositions; take more training frames (--train), or give "
            "--energy-reference none"
        )
    solution, *_ = np.linalg.lstsq(counts, energies - alike * counts.sum(axis=1), rcond=None)
    coefficients = dict(zip(elements.tolist(), (solution + alike).tolist(), strict=True))
    return EnergyReference(kind, coefficients, float(energies.mean()) if same else None, warning)
