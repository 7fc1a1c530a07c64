"""The whole road: runs of fairchem, scores, leaderboard files, report; it restarts where it
stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dens_ocp.data.checks import check_dataset_paths
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.jobs import Job, jobs_of
from dens_ocp.results.pipeline.options import EvaluationSettings
from dens_ocp.results.pipeline.progress import JobsBar
from dens_ocp.results.pipeline.side_by_side import side_by_side
from dens_ocp.results.report.training_sections import versions


@dataclass(frozen=True)
class RunOptions:
    """How the runs of fairchem are started.

    Attributes:
        arguments: handed on to fairchem: ``--cpu``, ``--num-gpus``, ``--amp``, ``--submit``, ...
        at_a_time: runs side by side.
        threads: CPU threads of each; None: torch's default.
    """

    arguments: tuple[str, ...] = ()
    at_a_time: int = 1
    threads: int | None = None


def run_jobs(
    jobs: list[Job],
    checkpoint: Path,
    options: RunOptions,
    locks: tuple[int, ...],
    say: Callable[[str], None],
) -> list[str]:
    """Run what is not done yet.

    Returns:
        SLURM jobs that were submitted instead.

    Raises:
        DensError: a run failed; the others that had been started are finished first.
    """

    def run(job: Job) -> str | None:
        watch = bar.watch(job.name)
        watch(1)
        slurm = job.run(
            checkpoint,
            list(options.arguments),
            threads=options.threads,
            inherited=locks,
            on_percent=lambda percent: watch(min(percent, 99)),
        )
        watch(100)
        return slurm

    waiting = unfinished(jobs)
    if len(waiting) < len(jobs):
        say(f"{len(jobs) - len(waiting)} of {len(jobs)} runs are done already")
    bar = JobsBar([job.name for job in waiting], disable="--submit" in options.arguments)
    try:
        done = side_by_side({job.name: partial(run, job) for job in waiting}, options.at_a_time)
    finally:
        bar.close()
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
