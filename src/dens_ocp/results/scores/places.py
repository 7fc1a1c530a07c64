"""Where things lie in the folder that ``dens-ocp evaluate`` makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class EvaluationPlaces:
    """Paths in an evaluation's folder.

    ::

        evaluation.json                       what is evaluated: checkpoint, data, settings
        predictions/<split>.npz               S2EF predictions, as fairchem writes them
        relaxations/<split>/trajectories/     one <sid>.traj for each system
        relaxations/<split>/relaxed_positions.npz
        scores.txt, scores.json, scores.tex   where there are labels
        submission/s2ef.npz, is2re.npz, is2rs.npz
        report/index.html
        configs/, output/, runs/              each run of fairchem: config, output, its own files
    """

    path: Path

    @property
    def description_file(self) -> Path:
        return self.path / "evaluation.json"

    @property
    def predictions_folder(self) -> Path:
        return self.path / "predictions"

    def predictions(self, split: str) -> Path:
        return self.predictions_folder / f"{split}.npz"

    def trajectories(self, split: str) -> Path:
        return self.path / "relaxations" / split / "trajectories"

    def positions(self, split: str) -> Path:
        return self.path / "relaxations" / split / "relaxed_positions.npz"

    def results(self, task: str, split: str) -> Path:
        """What ``dens-ocp evaluate`` scores and submits as ``s2ef``, ``is2re`` or ``is2rs``."""
        of_task = {"s2ef": self.predictions, "is2re": self.trajectories, "is2rs": self.positions}
        return of_task[task](split)

    def scores(self, kind: str) -> Path:
        """``kind``: ``txt``, ``json`` or ``tex``."""
        return self.path / f"scores.{kind}"

    def submission(self, task: str) -> Path:
        return self.path / "submission" / f"{task}.npz"

    def config(self, job: str) -> Path:
        return self.path / "configs" / f"{job}.yml"

    def output(self, job: str) -> Path:
        return self.path / "output" / f"{job}.log"

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def report(self) -> Path:
        return self.path / "report"
