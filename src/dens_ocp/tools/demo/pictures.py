"""Pictures of the demo beside those of the report: both runs in one, the paper's Fig. 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from dens_ocp.data.structures import Structure
from dens_ocp.results.report.figures.corruption_gallery import corruption_gallery, most_varied
from dens_ocp.results.report.figures.drawing import save
from dens_ocp.results.report.figures.learning_curves import learning_curves
from dens_ocp.results.report.scalars import read_series
from dens_ocp.tools.demo.runs import Trained


def corruption_picture(folder: Path, structures: Sequence[Structure], seed: int) -> Path:
    """``corruption.png``: one of the structures as the paper's Fig. 3."""
    return save(corruption_gallery(most_varied(structures), seed=seed), folder / "corruption.png")


def curves_picture(folder: Path, trained: Sequence[Trained]) -> Path:
    """``training.png``: losses and errors of all runs."""
    runs = {run.name: read_series(run.checkpoint.parent) for run in trained}
    sigma = trained[0].config["optim"]["dens"]["sigma"]
    mean_absolute = sigma * math.sqrt(2 / math.pi)
    figure = learning_curves(runs, noise_of_zero=mean_absolute)
    return save(figure, folder / "training.png")
