"""How far two models differ on the same structures, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dens_ocp.data.structures import Structure
from dens_ocp.errors import DensError
from dens_ocp.results.scores.prediction_files import Predictions, on_free_atoms


@dataclass(frozen=True)
class PairedErrors:
    """Force MAE of two models, meV/Angstrom, on the free atoms of the same structures.

    Attributes:
        first, second: of each model. difference: second - first.
        error: standard error of the difference over the systems (``sid``), whose frames are alike;
            None for one system.
        systems: their number.
    """

    first: float
    second: float
    error: float | None
    systems: int

    @property
    def difference(self) -> float:
        return self.second - self.first

    @property
    def percent(self) -> float:
        """The difference in percent of the first."""
        return 100 * self.difference / self.first

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than twice its standard error."""
        return self.error is not None and abs(self.difference) > 2 * self.error


def paired_errors(
    first: Predictions, second: Predictions, structures: Iterable[Structure]
) -> PairedErrors:
    """Compare two models.

    With T the sum of a system's differences of absolute errors, n its number of force components,
    and d the difference of the MAE, the error is sqrt(S / (S - 1) * sum of (T - d n)^2) / sum of n,
    that of a ratio of two sums over S systems.

    Args:
        first, second: predictions with forces, in any order, of these structures at least.
        structures: with forces.

    Raises:
        DensError: a structure without a prediction, predictions without forces, no structure.
    """
    if first.forces is None or second.forces is None:
        raise DensError("the predictions have no forces; predict with a model that gives forces")
    places = [{name: place for place, name in enumerate(each.ids)} for each in (first, second)]
    sums: dict[str, np.ndarray] = {}
    for structure in structures:
        wanted = structure.forces[structure.free]
        errors = []
        for predictions, place in zip((first, second), places, strict=True):
            if structure.id not in place:
                raise DensError(f"there is no prediction of the structure {structure.id}")
            found = on_free_atoms(predictions.forces[place[structure.id]], structure)
            errors.append(np.abs(found.astype(float) - wanted).sum())
        sums[structure.sid] = sums.get(structure.sid, 0.0) + np.array([*errors, wanted.size])
    if not sums:
        raise DensError("there are no structures to compare predictions on")
    table = np.array(list(sums.values()))
    count = table[:, 2].sum()
    one, other = table[:, :2].sum(0) / count
    error = None
    if len(table) > 1:
        residuals = table[:, 1] - table[:, 0] - (other - one) * table[:, 2]
        error = math.sqrt(len(table) / (len(table) - 1) * (residuals**2).sum()) / count
    return PairedErrors(
        1000 * one, 1000 * other, None if error is None else 1000 * error, len(table)
    )
