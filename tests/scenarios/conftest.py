"""One trained run that the end-to-end tests share (reading only)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.runs import run, small_config, write_config, write_data


@dataclass(frozen=True)
class TrainedRun:
    data: Path
    config: Path
    checkpoint: Path
    best_checkpoint: Path
    log: str


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def trained(data, tmp_path_factory) -> TrainedRun:
    """Two epochs through the real CLI."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_config(folder / "config.yml", small_config(data))
    done = run("train", config, "--identifier", "trained", cwd=folder)
    (checkpoint,) = folder.glob("checkpoints/*/checkpoint.pt")
    return TrainedRun(
        data, config, checkpoint, checkpoint.with_name("best_checkpoint.pt"), done.stdout
    )
