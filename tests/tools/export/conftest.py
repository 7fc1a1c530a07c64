"""Checkpoints of small DeNS models, as the trainer writes them, with weights that are not trained
but moved: no bias is zero, and the averaged weights are not the last ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN
from tests.runs import make_trainer, small_config, write_config, write_data

MODELS = {
    # fairchem's own path: the same arithmetic on both sides of a comparison in float32
    "equiformer_v2": {**SMALL_EQUIFORMER, "fast": False},
    # fairchem's quadrature needs fewer points here than the test of equivariance does
    "escn": {**SMALL_ESCN, "num_sphere_samples": 128, "fast": False},
    "esen": {**SMALL_ESEN, "fast": False},
}


@dataclass(frozen=True)
class Original:
    """A DeNS checkpoint (of training, with both weights), the best one, and the config."""

    folder: Path
    config: Path
    checkpoint: Path
    best: Path


def move(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
        # fairchem divides the sum over atoms by 78 or 1000; an energy should not be its mean only
        weights = [each for each in model.energy_head.parameters() if each.dim() > 1]
        weights[-1].mul_(300)


def write_original(data: Path, folder: Path, model: dict, references: bool = False) -> Original:
    config = small_config(data, model=model)
    if references:
        file = folder / "references.npz"
        np.savez(file, coeff=np.linspace(-1, 1, 100))
        transforms = config["dataset"]["train"]["transforms"]
        transforms["element_references"] = {"energy": {"file": str(file)}}
    trainer = make_trainer(config, folder, is_debug=False)
    move(trainer.model, seed=1)
    trainer.ema.update()
    checkpoint = trainer.save(checkpoint_file="checkpoint.pt", training_state=True)
    best = trainer.save(checkpoint_file="best_checkpoint.pt", training_state=False)
    return Original(
        folder, write_config(folder / "config.yml", config), Path(checkpoint), Path(best)
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def originals(data, tmp_path_factory) -> dict[str, Original]:
    return {
        name: write_original(data, tmp_path_factory.mktemp(name), model, references=True)
        for name, model in MODELS.items()
    }
