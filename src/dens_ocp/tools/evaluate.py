"""``dens-ocp evaluate``: options, and the order of things."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dens_ocp.errors import DensError, nearest
from dens_ocp.results.pipeline.folder import EvaluationFolder, sha256
from dens_ocp.settings.command_line import Command, changed, fairchem_options
from dens_ocp.settings.recipes import ConfigPath

if TYPE_CHECKING:
    from dens_ocp.results.pipeline.options import EvaluationSettings

_HANDED_ON = (
    "cpu", "num_gpus", "num_nodes", "amp", "seed",
    "submit", "slurm_partition", "slurm_account", "slurm_qos", "slurm_mem", "slurm_timeout",
)  # fmt: skip


@click.command(
    cls=Command,
    overrides=True,
    epilog="To override a setting of the config, add --section.option=value, for example "
    "--optim.eval_batch_size=16 or --evaluation.s2ef.id=data/oc20/s2ef/val_id.",
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--config-yml",
    type=ConfigPath(path_type=Path),
    required=True,
    help="what to evaluate on: configs/oc20/evaluate.yml, configs/oc22/evaluate.yml, "
    "configs/omat24/evaluate.yml, or your own config; the model options come from the checkpoint",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="folder of the evaluation (default: evaluations/NAME, where NAME is the checkpoint's "
    "folder)",
)
@click.option(
    "--only",
    multiple=True,
    metavar="RUN...",
    help="do only these runs, for example predict-id or relax-ood_ads, without scores and report; "
    "other runs of the evaluation may be in progress at the same time",
)
@click.option(
    "--list",
    "list_only",
    is_flag=True,
    help="print the names of the unfinished runs, one per line, and exit (for job arrays)",
)
@click.option(
    "--collect",
    is_flag=True,
    help="start no run; collect the results of finished SLURM jobs, then score them and write the "
    "files",
)
@click.option(
    "--at-a-time",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="number of runs at the same time on this machine",
)
@click.option("--no-report", is_flag=True, help="do not write a report")
@fairchem_options(*_HANDED_ON)
def command(
    checkpoint: Path,
    config_yml: Path,
    out: Path | None,
    only: tuple[str, ...],
    list_only: bool,
    collect: bool,
    at_a_time: int,
    no_report: bool,
    overrides: list[str],
    **handed_on: Any,
) -> None:
    """Predict on all splits, relax, score, and write the leaderboard files and a report. If it was
    interrupted, run it again to resume: finished predictions and trajectories are kept.

    CHECKPOINT is best_checkpoint.pt or checkpoint.pt.
    """
    import torch
    from tqdm import tqdm

    from dens_ocp.checkpoints import checkpoint_files
    from dens_ocp.launch import processor
    from dens_ocp.results.pipeline.cell_job import refuse_submit
    from dens_ocp.results.pipeline.jobs import jobs_of, run_jobs
    from dens_ocp.results.pipeline.options import load_settings

    content = checkpoint_files.read(checkpoint, torch.device("cpu"))
    settings = load_settings(config_yml, content, overrides)
    out = out or Path("evaluations") / checkpoint.resolve().parent.name
    folder = EvaluationFolder(out.resolve())
    if at_a_time < 1:
        raise DensError(f"--at-a-time: {at_a_time} is not a number of runs; give 1 or more")
    refuse_ranks("evaluate")
    named = selected(jobs_of(settings, folder), only)
    if list_only:
        for job in named:
            if not job.result.is_file():
                print(job.name)
        return
    start = None
    if not collect:
        args = SimpleNamespace(**handed_on)
        processor.choose(args)
        if args.submit:
            refuse_submit(named)
        threads = 1 if args.cpu and at_a_time > 1 else None
        words = changed(vars(args), *_HANDED_ON)
        start = partial(run_jobs, arguments=words, at_a_time=at_a_time, threads=threads)
    submitted = evaluated(settings, checkpoint, folder, start, tqdm.write, only, not no_report)
    if submitted:
        tqdm.write("submitted: " + ", ".join(submitted))
        tqdm.write("when they have ended, run the same command with --collect instead of --submit")
    elif only:
        tqdm.write(f"done: {', '.join(job.name for job in named)}")


def evaluated(
    settings: EvaluationSettings,
    checkpoint: Path,
    folder: EvaluationFolder,
    start: Callable[..., list[str]] | None,
    say: Callable[[str], None],
    only: Sequence[str] = (),
    report: bool = False,
    show: Callable[[str], None] | None = None,
) -> list[str]:
    """Run what is not done yet, then score and write; with ``only``, run no more than these.

    Args:
        start: ``run_jobs`` with its options; None: no run is started, what SLURM jobs have
            finished is taken.
        say: prints a line. show: prints scores and what was written; default: ``say``.
        report: write the report too.

    Returns:
        SLURM jobs that were submitted instead.

    Raises:
        DensError: a run failed, or is missing; results that do not fit the data.
    """
    from dens_ocp.results.pipeline.conclude import conclude
    from dens_ocp.results.pipeline.jobs import prepare, unfinished

    with folder.locked(say, only) as locks:
        chosen = selected(prepare(settings, checkpoint, sha256(checkpoint), folder), only)
        if start is not None:
            submitted = start(chosen, checkpoint.resolve(), locks, say)
            if submitted:
                return submitted
        if missing := unfinished(chosen):
            raise DensError(
                f"{len(missing)} of {len(chosen)} runs are not done: "
                f"{', '.join(job.name for job in missing)}; see their output in "
                f"{folder.output('*').parent}"
            )
        if not only:
            conclude(settings, folder, report=report, say=show or say)
    return []


Named = TypeVar("Named")


def selected(runs: Sequence[Named], names: Sequence[str]) -> list[Named]:
    """Those of ``runs``, by their attribute ``name``, that are called ``names``; all without one.
    Raises a DensError if there is no such run."""
    known = {run.name: run for run in runs}
    for name in names:
        if name not in known:
            raise DensError(
                f"--only: there is no run {name!r}{nearest(name, known)}; runs: {', '.join(known)}"
            )
    return [known[name] for name in names or known]


def refuse_ranks(command: str) -> None:
    """Raises a DensError if srun or torchrun has started this process."""
    from dens_ocp.launch import ranks

    if ranks.of_environment(os.environ) is not None:
        raise DensError(
            f"dens-ocp {command} starts its own processes: run it once, without srun or torchrun, "
            "and give --num-gpus"
        )
