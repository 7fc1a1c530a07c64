"""The runs of fairchem that an evaluation consists of, one for each split and task; they go on
where they stopped."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from dens_ocp.data.checks import check_dataset_paths
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.options import EvaluationSettings
from dens_ocp.results.pipeline.process import jobs_bar, run_cli, side_by_side
from dens_ocp.results.report.training_sections import versions
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

        run_cli(
            [
                "--mode", self.mode, "--config-yml", str(config), "--checkpoint", str(checkpoint),
                "--run-dir", str(self.folder.runs), "--timestamp-id", self.name,
                "--identifier", self.name, *arguments,
            ],
            log=self.folder.output(self.name),
            on_line=read,
            threads=threads,
            inherited=inherited,
        )  # fmt: skip
        if submitted:
            return submitted[0]
        if not self.collect():
            raise DensError(
                f"{self.name} ended without a result; see {self.folder.output(self.name)}"
            )
        return None


def jobs_of(settings: EvaluationSettings, folder: EvaluationFolder) -> list[Job]:
    """The runs of an evaluation, relaxations first: they take longest."""
    base = {"task": {}, "dataset": {}, **copy.deepcopy(settings.host)}
    base["task"] = base["task"] or {}
    if settings.board is not None:
        base["task"].setdefault("prediction_dtype", settings.board.prediction_dtype)
    relaxations, predictions = [], []
    for split in settings.splits:
        if split in settings.is2re:
            config, section = copy.deepcopy(base), dict(settings.is2re[split])
            config["dataset"]["relax"] = section
            config["task"] |= {"write_pos": True, "relax_dataset": {"src": section["src"]}}
            folder_of = {"traj_dir": str(folder.trajectories(split))}
            config["task"]["relax_opt"] = config["task"].get("relax_opt", {}) | folder_of
            relaxations.append(Job("run-relaxations", split, config, folder))
        if split in settings.s2ef:
            config = copy.deepcopy(base)
            config["dataset"]["test"] = dict(settings.s2ef[split])
            predictions.append(Job("predict", split, config, folder))
    return [*relaxations, *predictions]


def run_jobs(
    jobs: list[Job],
    checkpoint: Path,
    locks: tuple[int, ...],
    say: Callable[[str], None],
    arguments: Sequence[str] = (),
    at_a_time: int = 1,
    threads: int | None = None,
) -> list[str]:
    """Run what is not done yet.

    Args:
        jobs: of :func:`prepare`.
        checkpoint: to evaluate. locks: of the folder. say: prints a line.
        arguments: handed on to fairchem: ``--cpu``, ``--num-gpus``, ``--amp``, ``--submit``, ...
        at_a_time: runs side by side.
        threads: CPU threads of each; None: torch's default.

    Returns:
        SLURM jobs that were submitted instead.

    Raises:
        DensError: a run failed; the others that had been started are finished first.
    """
    waiting = unfinished(jobs)
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are done already")
    with jobs_bar([job.name for job in waiting], "--submit" in arguments) as watch:

        def run(job: Job) -> str | None:
            watch(job.name, 1)
            slurm = job.run(
                checkpoint,
                list(arguments),
                threads=threads,
                inherited=locks,
                on_percent=lambda percent: watch(job.name, min(percent, 99)),
            )
            watch(job.name, 100)
            return slurm

        done = side_by_side({job.name: partial(run, job) for job in waiting}, at_a_time)
    return [f"{name}: {slurm}" for name, slurm in done.items() if slurm]


def unfinished(jobs: list[Job]) -> list[Job]:
    """Runs without a result, after taking over what is there."""
    return [job for job in jobs if not job.collect()]


def prepare(
    settings: EvaluationSettings, checkpoint: Path, sha256: str, folder: EvaluationFolder
) -> list[Job]:
    """Describe the evaluation in its folder; returns its runs.

    Raises:
        DensError: a data set is missing or damaged; the folder holds results of something else.
    """
    for task, sections in (("s2ef", settings.s2ef), ("is2re", settings.is2re)):
        for split, section in sections.items():
            check_dataset_paths(section, f"evaluation.{task}.{split}")
    jobs = jobs_of(settings, folder)

    def is_there(name: str) -> bool:
        mode, _, split = name.partition("-")
        if mode == "predict":
            return folder.predictions(split).is_file()
        return folder.positions(split).is_file() or folder.trajectories(split).is_dir()

    description = {
        "board": settings.board.name if settings.board else None,
        "checkpoint": str(checkpoint.resolve()),
        "checkpoint_sha256": sha256,
        "splits": {
            split: {"s2ef": settings.s2ef.get(split), "is2re": settings.is2re.get(split)}
            for split in settings.splits
        },
        "relaxation_fmax": (settings.host.get("task") or {}).get("relaxation_fmax"),
        "jobs": {job.name: job.config for job in jobs},
        "versions": versions(),
    }
    folder.describe(description, is_there)
    return jobs
