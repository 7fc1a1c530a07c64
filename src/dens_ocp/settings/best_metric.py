"""Which of two validations is the better one.

fairchem-core 1.10.0 asks whether the metric's name contains "mae" and takes larger for better where
it does not (``trainers/base_trainer.py:748``): by ``forces_rmse``, ``energy_mse`` or ``loss`` it
keeps the worst model as ``best_checkpoint.pt``, and by ``mae_like_cosine_similarity`` too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from dens_ocp.errors import DensError, nearest

SMALLER = (
    "mae", "mse", "rmse", "per_atom_mae", "per_atom_mse", "magnitude_error",
    "forcesx_mae", "forcesy_mae", "forcesz_mae", "forcesx_mse", "forcesy_mse", "forcesz_mse",
)  # fmt: skip
"""Functions of fairchem's evaluator that are errors."""
LARGER = (
    "cosine_similarity", "energy_within_threshold", "energy_forces_within_threshold",
    "average_distance_within_threshold",
)  # fmt: skip
"""Its functions that are similarities or shares of good predictions."""
METRICS = SMALLER + LARGER

_NOTHING_YET = (None, 1e9, -1.0)  # what fairchem writes before the first validation


def larger_is_better(name: str) -> bool:
    """Whether a validation is better where the metric ``name`` is larger.

    Args:
        name: ``TARGET_FUNCTION`` or ``FUNCTION`` of fairchem's evaluator; ``loss``.

    Raises:
        DensError: the name ends with no known function, so nobody can tell.

    >>> larger_is_better("forces_rmse"), larger_is_better("forces_cosine_similarity")
    (False, True)
    """
    if name == "loss" or name.startswith("loss_"):
        return False
    for functions, larger in ((LARGER, True), (SMALLER, False)):
        if any(name == each or name.endswith(f"_{each}") for each in functions):
            return larger
    raise DensError(
        f"evaluation_metrics.primary_metric: {name!r}: it is not known whether smaller or larger "
        "is better; use loss, or a metric that ends with one of "
        f"{', '.join(METRICS)}{nearest(name, METRICS)}"
    )


def check(name: str | None, computed: Iterable[str], where: str = "evaluation_metrics") -> None:
    """``primary_metric`` is one of the metrics of a validation and has a direction.

    Args:
        name: of the metric. computed: names of all metrics of a validation.
        where: name of the section, for messages.

    Raises:
        DensError: it is not.
    """
    computed = [*computed, "loss"]
    if name not in computed:
        near = nearest(str(name), computed) or f"; the metrics are {', '.join(computed)}"
        raise DensError(f"{where}.primary_metric: {name!r} is not one of {where}.metrics{near}")
    larger_is_better(name)


def best_so_far(name: str, recorded: float | None = None) -> float:
    """The metric to beat: ``recorded``, or infinitely bad where nothing was validated yet."""
    if recorded in _NOTHING_YET:
        return -math.inf if larger_is_better(name) else math.inf
    return float(recorded)


def is_better(name: str, value: float, best: float) -> bool:
    """Whether ``value`` of the metric ``name`` beats ``best``; NaN beats nothing."""
    return value > best if larger_is_better(name) else value < best
