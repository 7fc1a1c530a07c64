"""A run of fairchem that an evaluation consists of."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.process import run_cli
from dens_ocp.whole_files import write_text

_PERCENT = re.compile(r"(\d+)%\|")
_SUBMITTED = re.compile(r"Submitted jobs: (.+)")


@dataclass(frozen=True)
class Job:
    """A run of fairchem.

    Attributes:
        mode: ``predict`` or ``run-relaxations``.
        split: name of the split.
        config: fairchem's config, with the data set.
        folder: of the evaluation.
    """

    mode: str
    split: str
    config: dict[str, Any]
    folder: EvaluationFolder

    @property
    def name(self) -> str:
        """``predict-id`` or ``relax-id`` for example; fairchem's timestamp-id too."""
        return f"{'predict' if self.mode == 'predict' else 'relax'}-{self.split}"

    @property
    def result(self) -> Path:
        """The file that is there when, and only when, the run is done and collected."""
        if self.mode == "predict":
            return self.folder.predictions(self.split)
        return self.folder.positions(self.split)

    def collect(self) -> bool:
        """Take over what the finished run wrote; returns whether the result is there."""
        if not self.result.is_file():
            pattern = "*_predictions.npz" if self.mode == "predict" else "relaxed_positions.npz"
            written = sorted((self.folder.runs / "results" / self.name).glob(pattern))
            if not written:
                return False
            self.result.parent.mkdir(parents=True, exist_ok=True)
            os.replace(written[0], self.result)
        return True

    def run(
        self,
        checkpoint: Path,
        arguments: list[str],
        *,
        threads: int | None,
        inherited: tuple[int, ...],
        on_percent: Callable[[int], None],
    ) -> str | None:
        """Run it, or submit it to SLURM with ``--submit`` among the arguments.

        Returns:
            The SLURM job, or None.

        Raises:
            DensError: the run failed, or left no result.
        """
        config = self.folder.config(self.name)
        write_text(config, yaml.safe_dump(self.config, sort_keys=False))
        submitted: list[str] = []

        def read(line: str) -> None:
            if found := _PERCENT.search(line):
                on_percent(int(found[1]))
            if found := _SUBMITTED.search(line):
                submitted.append(found[1].strip())

        words, more = self._call(config, checkpoint, arguments)
        run_cli(
            words,
            log=self.folder.output(self.name),
            on_line=read,
            threads=threads,
            inherited=inherited,
            **more,
        )
        if submitted:
            return submitted[0]
        if not self.collect():
            raise DensError(
                f"{self.name} ended without a result; see {self.folder.output(self.name)}"
            )
        return None

    def _call(
        self, config: Path, checkpoint: Path, arguments: list[str]
    ) -> tuple[list[str], dict[str, Any]]:
        """The words of its command, and more options of :func:`run_cli`."""
        words = [
            "--mode", self.mode, "--config-yml", str(config), "--checkpoint", str(checkpoint),
            "--run-dir", str(self.folder.runs), "--timestamp-id", self.name,
            "--identifier", self.name, *arguments,
        ]  # fmt: skip
        return words, {}
