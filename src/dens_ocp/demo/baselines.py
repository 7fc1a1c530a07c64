"""Predictors that anything trained must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dens_ocp.demo.labels import Labels
from dens_ocp.evaluation.prediction_files import Predictions
from dens_ocp.evaluation.structures import Structure

ZERO_FORCE, MEAN = "mean energy, zero force", "mean of train"


def baselines(train: Labels, structures: Sequence[Structure]) -> dict[str, Predictions]:
    """The training set's mean energy for every structure, with zero or its mean force for every
    free atom."""
    forces = {ZERO_FORCE: np.zeros(3), MEAN: train.all_forces.mean(0)}
    return {
        name: Predictions(
            [each.id for each in structures],
            np.full(len(structures), train.energy.mean()),
            [np.broadcast_to(force, (int(each.free.sum()), 3)) for each in structures],
        )
        for name, force in forces.items()
    }
