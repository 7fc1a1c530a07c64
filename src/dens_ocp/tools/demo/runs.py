"""The runs of the demo: training, validation, prediction, relaxations through the real CLI."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.process import run_cli
from dens_ocp.tools.demo import config
from dens_ocp.tools.demo.progress import TrainingProgress

PRINT_EVERY = 20


def new_run_id() -> str:
    """The time to the microsecond: fairchem's own names are as coarse as 128 s."""
    return datetime.now().strftime("%Y%m%d-%H%M%S-%f")


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    name: str
    config: dict[str, Any]
    checkpoint: Path
    events: Path  # folder of its tensorboard files


@dataclass
class Runs:
    """Starts runs in ``workdir``; each has its own name, config file and log.

    Attributes:
        workdir: gets ``configs``, ``output`` (what each run printed), ``checkpoints``, ``logs``
            and ``results``.
        seed: of all runs.
        write: prints a line.
    """

    workdir: Path
    seed: int
    write: Callable[[str], None] = print
    run_id: str = field(default_factory=new_run_id)

    def train(self, name: str, settings: dict[str, Any], total_steps: int, ranks: int) -> Trained:
        """Train with ``ranks`` processes; returns where the best checkpoint lies."""
        progress = TrainingProgress(name, total_steps, write=self.write)
        timestamp = self._run("train", f"train-{name}", settings, on_line=progress, ranks=ranks)
        folder = self.workdir / "checkpoints" / timestamp
        checkpoint = folder / "best_checkpoint.pt"
        if not checkpoint.is_file():
            raise DensError(f"training left no {checkpoint}; see the output of the run")
        events = self.workdir / "logs" / "tensorboard" / timestamp
        return Trained(name, settings, checkpoint, events)

    def validate(self, trained: Trained, source: Path) -> dict[str, float]:
        """Validate; returns fairchem's metrics (eV, eV/Angstrom)."""
        found: dict[str, float] = {}

        def read(line: str) -> None:
            if "forces_mae: " in line:
                found.update({k: float(v) for k, v in re.findall(r"(\w+): (-?[\d.]+)", line)})

        name = f"validate-{trained.name}"
        settings = config.validation(trained.config, source)
        self._run("validate", name, settings, on_line=read, checkpoint=trained.checkpoint)
        if "forces_mae" not in found:
            raise DensError("validate printed no metrics; see the output of the run")
        return found

    def _run(
        self,
        mode: str,
        name: str,
        settings: dict[str, Any],
        on_line: Callable[[str], None] | None = None,
        checkpoint: Path | None = None,
        ranks: int = 1,
    ) -> str:
        name = name.replace(" ", "-")
        timestamp = f"{self.run_id}-{name}"
        folder = self.workdir / "configs" / self.run_id
        path = config.write(folder / f"{name}.yml", settings)
        arguments = [
            "--mode", mode, "--config-yml", str(path), "--run-dir", str(self.workdir), "--cpu",
            "--timestamp-id", timestamp, "--identifier", f"demo-{name}",
            "--seed", str(self.seed), "--print-every", str(PRINT_EVERY),
        ]  # fmt: skip
        if checkpoint is not None:
            arguments += ["--checkpoint", str(checkpoint)]
        if ranks > 1:
            arguments += ["--num-gpus", str(ranks)]  # processes, with --cpu
        log = self.workdir / "output" / self.run_id / f"{name}.log"
        run_cli(arguments, log=log, on_line=on_line, cwd=self.workdir)
        return timestamp
