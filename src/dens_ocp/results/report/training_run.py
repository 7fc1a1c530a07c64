"""What a training run left: config, step, logged curves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dens_ocp.checkpoints import checkpoint_files
from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from dens_ocp.errors import DensError, nearest
from dens_ocp.results.report.scalars import Series
from dens_ocp.results.report.tensorboard_curves import has_events, read_scalars
from dens_ocp.results.report.wandb_curves import read_wandb, run_files

CHECKPOINTS = ("checkpoint.pt", "best_checkpoint.pt")


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Attributes:
        name: of its folder of checkpoints.
        run_dir: that was given to fairchem.
        checkpoint: file that was read.
        config: fairchem's, as the checkpoint has it.
        step, epoch: of the checkpoint, or None.
        best: its best validation metric and the name, or None.
        series: logged scalars; empty where there are none.
        logged_in: folder that they were read from, or None.
    """

    name: str
    run_dir: Path
    checkpoint: Path
    config: dict[str, Any]
    step: int | None
    epoch: float | None
    best: tuple[str, float] | None
    series: Series = field(default_factory=dict)
    logged_in: Path | None = None

    @property
    def dens(self) -> DeNSConfig | None:
        """The options of DeNS, or None where the config has none."""
        return parse_dens_config(self.config.get("optim", {}))

    def inside(self, path: Path) -> str:
        """A path as it is found from ``run_dir``; one that lies elsewhere as it is."""
        path = Path(path)
        return str(path.relative_to(self.run_dir) if path.is_relative_to(self.run_dir) else path)

    @property
    def print_every(self) -> int:
        """``--print-every``: over so many steps the logged training metrics are means."""
        return int(self.config.get("cmd", {}).get("print_every") or 1)


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
            "evaluation.json; name a training run that has saved one, or an evaluation folder"
        )
    parent = Path(run_dir) / "checkpoints"
    known = sorted(path.name for path in parent.iterdir()) if parent.is_dir() else []
    shown = f"; the latest there: {known[-1]}" if known else ""
    raise DensError(
        f"RUN: there is no run {run!r} in {parent}{nearest(run, known)}{shown}; give a name in "
        "it, the path of a folder of checkpoints, or an evaluation folder"
    )


def read_run(folder: Path) -> TrainingRun:
    """Read a run from its folder ``<run-dir>/checkpoints/<name>``.

    Raises:
        DensError: a damaged checkpoint.
    """
    folder = Path(folder).resolve()
    path = next(folder / name for name in CHECKPOINTS if (folder / name).is_file())
    content = read_checkpoint(path)
    config = content.get("config") or {}
    best = content.get("best_val_metric")
    if best is not None and (not math.isfinite(best) or best == 1e9):
        best = None  # no validation yet
    name, run_dir = folder.name, folder.parents[1]
    series, logged_in = _curves(name, run_dir, config)
    step = content.get("step")
    return TrainingRun(
        name=name,
        run_dir=run_dir,
        checkpoint=path,
        config=config,
        step=None if step is None else int(step),
        epoch=content.get("epoch"),
        best=None if best is None else (str(content.get("primary_metric")), float(best)),
        series=series,
        logged_in=logged_in,
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


def _curves(name: str, run_dir: Path, config: dict[str, Any]) -> tuple[Series, Path | None]:
    logs = run_dir / "logs"
    told = config.get("cmd", {}).get("logs_dir")
    folders = [logs / "tensorboard" / name, logs / "wandb" / name, *([Path(told)] if told else [])]
    for folder in folders:
        if has_events(folder):
            return read_scalars(folder), folder
        if run_files(folder):
            return read_wandb(folder), folder
    return {}, None
