"""Which pictures the demo draws, and under which names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch_geometric.data import Data

from dens_ocp.demo.runs import PRINT_EVERY, Trained
from dens_ocp.demo.table import Labels, errors
from dens_ocp.evaluation.structures import structure
from dens_ocp.report.corruption_gallery import corruption_gallery, most_varied
from dens_ocp.report.drawing import save
from dens_ocp.report.learning_curves import learning_curves
from dens_ocp.report.parity import Parity, parity
from dens_ocp.report.tensorboard_curves import read_scalars


def corruption_picture(folder: Path, records: Sequence[Data], seed: int) -> Path:
    """``corruption.png``: one of the records as the paper's Fig. 3."""
    shown = most_varied([structure(record) for record in records])
    return save(corruption_gallery(shown, seed=seed), folder / "corruption.png")


def curves_picture(folder: Path, trained: Sequence[Trained]) -> Path:
    """``training.png``: losses and errors of all runs."""
    runs = {run.name: read_scalars(run.events) for run in trained}
    sigma = trained[0].config["optim"]["dens"]["sigma"]
    mean_absolute = sigma * math.sqrt(2 / math.pi)
    figure = learning_curves(runs, PRINT_EVERY, noise_of_zero=mean_absolute)
    return save(figure, folder / "training.png")


def parity_picture(
    folder: Path, name: str, predicted: dict[str, Labels], true: dict[str, Labels]
) -> Path:
    """``parity-<run>.png``: a column per split."""
    path = folder / f"parity-{name.replace(' ', '-')}.png"
    splits = {split: _compared(predicted[split], true[split]) for split in true}
    return save(parity(splits, label="EMT"), path)


def _compared(predicted: Labels, true: Labels) -> Parity:
    error = errors(predicted, true)
    return Parity(
        energies=np.stack([true.energy, predicted.energy], 1),
        forces=np.stack([true.all_forces.ravel(), predicted.all_forces.ravel()], 1),
        energy_mae=error.energy_mae,
        force_mae=error.force_mae,
    )
