"""The runs of fairchem that an evaluation consists of, one for each split and task; they go on
where they stopped."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from dens_ocp.data.checks import check_dataset_paths
from dens_ocp.results.pipeline.cell_job import cell_jobs, split_of
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.job import Job
from dens_ocp.results.pipeline.options import EvaluationSettings
from dens_ocp.results.pipeline.process import jobs_bar, side_by_side
from dens_ocp.results.report.training_sections import versions


def jobs_of(settings: EvaluationSettings, folder: EvaluationFolder) -> list[Job]:
    """The runs of an evaluation, relaxations first: they take longest."""
    base = {"task": {}, "dataset": {}, **copy.deepcopy(settings.host)}
    base["task"] = base["task"] or {}
    if settings.board is not None:
        base["task"].setdefault("prediction_dtype", settings.board.prediction_dtype)
    elif "stress" in (base.get("outputs") or {}):  # total energies: float16 rounds them by eV/10
        base["task"].setdefault("prediction_dtype", "float32")
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
    return [*relaxations, *cell_jobs(settings, folder), *predictions]


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
    of_task = {"s2ef": settings.s2ef, "is2re": settings.is2re, "relax_cell": settings.relax_cell}
    for task, sections in of_task.items():
        for split, section in sections.items():
            check_dataset_paths(section, f"evaluation.{task}.{split}")
    jobs = jobs_of(settings, folder)

    def is_there(name: str) -> bool:
        if (of_cells := split_of(name)) is not None:
            return folder.cells(of_cells).is_dir()
        mode, _, split = name.partition("-")
        if mode == "predict":
            return folder.predictions(split).is_file()
        return folder.positions(split).is_file() or folder.trajectories(split).is_dir()

    description = {
        "board": settings.board.name if settings.board else None,
        "checkpoint": str(checkpoint.resolve()),
        "checkpoint_sha256": sha256,
        "dens": settings.trained_with_dens,
        "splits": {
            split: {task: sections.get(split) for task, sections in of_task.items()}
            for split in settings.splits
        },
        "relaxation_fmax": (settings.host.get("task") or {}).get("relaxation_fmax"),
        "jobs": {job.name: job.config for job in jobs},
        "versions": versions(),
    }
    folder.describe(description, is_there)
    return jobs
