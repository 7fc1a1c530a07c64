"""What a training run left: config, step, logged numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dens_ocp.checkpoints import checkpoint_files
from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from dens_ocp.errors import DensError, nearest
from dens_ocp.results.report.scalars import Series, read_series

CHECKPOINTS = ("checkpoint.pt", "best_checkpoint.pt")


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Attributes:
        name: of its folder of checkpoints.
        run_dir: that was given to fairchem.
        checkpoint: file that was read.
        config: fairchem's, as the checkpoint has it.
        dens: the options of DeNS, or None where the config has none.
        step, epoch: of the checkpoint, or None.
        best: the name of the metric that chooses the best checkpoint and its best value, or None.
        series: logged numbers; empty where there are none.
    """

    name: str
    run_dir: Path
    checkpoint: Path
    config: dict[str, Any]
    dens: DeNSConfig | None
    step: int | None
    epoch: float | None
    best: tuple[str, float] | None
    series: Series = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether the run trains with DeNS."""
        return self.dens is not None and self.dens.active

    def inside(self, path: Path) -> str:
        """A path as it is found from ``run_dir``; one that lies elsewhere as it is."""
        return str(path.relative_to(self.run_dir) if path.is_relative_to(self.run_dir) else path)


def find_folder(run: str, run_dir: Path) -> Path:
    """The folder of checkpoints of a run given by name, folder or checkpoint file.

    Raises:
        DensError: there is none; says the nearest name.
    """
    given, named = Path(run), Path(run_dir) / "checkpoints" / run
    for folder in (given.parent if given.is_file() else given, named):
        if any((folder / name).is_file() for name in CHECKPOINTS):
            return folder
    if named.is_dir() or given.is_dir():
        folder = given if given.is_dir() else named
        raise DensError(
            f"RUN: {folder} holds neither a checkpoint ({' or '.join(CHECKPOINTS)}) nor an "
            "evaluation.json; give a training run that has saved a checkpoint, or an evaluation "
            "folder"
        )
    parent = named.parent
    known = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    shown = f"; the latest run there is {known[-1]}" if known else ""
    raise DensError(
        f"RUN: there is no run {run!r} in {parent}{nearest(run, known)}{shown}; give the name of "
        "a run there, the path of a folder of checkpoints, or an evaluation folder"
    )


def read_run(folder: Path) -> TrainingRun:
    """Read a run from its folder ``<run-dir>/checkpoints/<name>``.

    Raises:
        DensError: a damaged checkpoint.
    """
    folder = Path(folder).resolve()
    path = next(folder / name for name in CHECKPOINTS if (folder / name).is_file())
    content = read_checkpoint(path)
    best, step = content.get("best_val_metric"), content.get("step")
    if best is not None and (not math.isfinite(best) or best == 1e9):
        best = None  # no validation yet
    config = content.get("config") or {}
    return TrainingRun(
        name=folder.name,
        run_dir=folder.parents[1],
        checkpoint=path,
        config=config,
        dens=parse_dens_config(config.get("optim", {})),
        step=None if step is None else int(step),
        epoch=content.get("epoch"),
        best=None if best is None else (str(content.get("primary_metric")), float(best)),
        series=read_series(folder),
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint; tensors stay in the file where its format allows it.

    Raises:
        DensError: not a checkpoint, damaged, or one that could run code.
    """
    content = checkpoint_files.read_content(path, "cpu", mmap=True)
    if not isinstance(content, dict):
        raise DensError(f"checkpoint: {path} is not a fairchem checkpoint")
    return content
