"""Predictors that anything trained must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dens_ocp.data.structures import Structure
from dens_ocp.results.scores.prediction_files import Predictions
from dens_ocp.tools.demo.labels import Labels

ZERO_FORCE, MEAN = "split's mean energy, zero force", "train's mean energy and force"


def baselines(train: Labels, structures: Sequence[Structure]) -> dict[str, Predictions]:
    """For every structure the mean of their own labelled energies and no force, as in the report's
    key numbers; and the training set's mean energy and mean force of free atoms."""
    own = float(np.mean([each.energy for each in structures]))
    means = {
        ZERO_FORCE: (own, np.zeros(3)),
        MEAN: (float(train.energy.mean()), train.all_forces.mean(0)),
    }
    return {
        name: Predictions(
            [each.id for each in structures],
            np.full(len(structures), energy),
            [np.broadcast_to(force, (int(each.free.sum()), 3)) for each in structures],
        )
        for name, (energy, force) in means.items()
    }
