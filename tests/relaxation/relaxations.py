"""Relaxations in this process, with our trainer and with fairchem's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.io import Trajectory

from tests.runs import make_trainer, small_config

STOCK = "equiformerv2_forces"
OURS = "dens_ocp.trainer.DeNSTrainer"


@dataclass
class LoggedMetrics:
    """Stands in for fairchem's logger: keeps what it was told."""

    metrics: dict[str, float] = field(default_factory=dict)

    def log(self, values: dict[str, float], step: int, split: str = "") -> None:
        self.metrics.update(values)


def config(relax: Path, traj_dir: Path | None, batch_size: int = 3, **task: Any) -> dict[str, Any]:
    """Relaxations of five steps at most with the small model, without a training set."""
    settings = small_config(relax)
    settings["dataset"] = {
        "relax": {
            "src": str(relax),
            "key_mapping": {"y": "energy", "force": "forces", "y_relaxed": "energy_relaxed"},
        }
    }
    settings["optim"]["eval_batch_size"] = batch_size
    del settings["optim"]["load_balancing"]  # fairchem wants metadata.npz for it
    settings["task"] = {
        "relaxation_steps": 5, "relaxation_fmax": 0.001, "write_pos": True,
        "relax_opt": {"maxstep": 0.04, "memory": 50, "damping": 1.0, "alpha": 70.0},
        **task,
    }  # fmt: skip
    if traj_dir is not None:
        settings["task"]["relax_opt"]["traj_dir"] = str(traj_dir)
    return settings


def trainer_of(settings: dict[str, Any], run_dir: Path, name: str = OURS, weights: int = 0):
    """A trainer with weights drawn from the seed ``weights``."""
    trainer = make_trainer(settings, run_dir, name, timestamp_id="run", seed=weights)
    trainer.logger = LoggedMetrics()
    Path(trainer.config["cmd"]["results_dir"]).mkdir(parents=True, exist_ok=True)
    return trainer


def relax(settings: dict[str, Any], run_dir: Path, name: str = OURS, weights: int = 0):
    """Relax; returns the trainer and the metrics that were logged."""
    trainer = trainer_of(settings, run_dir, name, weights)
    torch.manual_seed(0)
    trainer.run_relaxations()
    return trainer, trainer.logger.metrics


def positions(run_dir: Path) -> dict[str, np.ndarray]:
    """(N, 3) by sid, from the file of relaxed positions."""
    with np.load(run_dir / "results" / "run" / "relaxed_positions.npz") as file:
        parts = np.split(file["pos"], file["chunk_idx"])
        return dict(zip(file["ids"].tolist(), parts, strict=True))


def last_frames(folder: Path) -> dict[str, Any]:
    """The last frame by sid; None for an empty file."""
    frames = {}
    for path in sorted(folder.glob("*.traj")):
        with Trajectory(path) as trajectory:
            frames[path.stem] = trajectory[-1] if len(trajectory) else None
    return frames


def contents(*folders: Path) -> dict[str, bytes]:
    """The bytes of all files, by name."""
    return {
        path.name: path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
