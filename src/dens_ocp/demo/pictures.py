"""Which pictures the demo draws, and under which names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from torch_geometric.data import Data

from dens_ocp.demo.corruption_picture import draw_corruption, most_varied
from dens_ocp.demo.curves import draw_curves, read_scalars
from dens_ocp.demo.parity import draw_parity
from dens_ocp.demo.runs import PRINT_EVERY, Trained
from dens_ocp.demo.table import Labels


def corruption_picture(folder: Path, records: Sequence[Data], seed: int) -> Path:
    """``corruption.png``: one of the records as the paper's Fig. 3."""
    return draw_corruption(folder / "corruption.png", most_varied(records), seed=seed)


def curves_picture(folder: Path, trained: Sequence[Trained]) -> Path:
    """``training.png``: losses and errors of all runs."""
    runs = {run.name: read_scalars(run.events) for run in trained}
    sigma = trained[0].config["optim"]["dens"]["sigma"]
    mean_absolute = sigma * math.sqrt(2 / math.pi)
    return draw_curves(folder / "training.png", runs, PRINT_EVERY, noise_of_zero=mean_absolute)


def parity_picture(
    folder: Path, name: str, predicted: dict[str, Labels], true: dict[str, Labels]
) -> Path:
    """``parity-<run>.png``: a column per split."""
    path = folder / f"parity-{name.replace(' ', '-')}.png"
    return draw_parity(path, {split: (predicted[split], true[split]) for split in true})
