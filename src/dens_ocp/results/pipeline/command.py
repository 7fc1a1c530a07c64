"""``dens-ocp evaluate``: options, and the order of things."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common.flags import flags
from tqdm import tqdm

from dens_ocp.checkpoints import checkpoint_files
from dens_ocp.errors import DensError
from dens_ocp.launch import processor, ranks
from dens_ocp.results.pipeline.conclude import conclude
from dens_ocp.results.pipeline.evaluate import RunOptions, prepare, run_jobs, select, unfinished
from dens_ocp.results.pipeline.folder import EvaluationFolder, sha256
from dens_ocp.results.pipeline.jobs import jobs_of
from dens_ocp.results.pipeline.options import load_settings

_HANDED_ON = (
    "cpu", "num_gpus", "num_nodes", "amp", "seed",
    "submit", "slurm_partition", "slurm_account", "slurm_qos", "slurm_mem", "slurm_timeout",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of ``dens-ocp evaluate``."""
    parser.description = (
        "Predict on all splits, relax, score, write the leaderboard's files and a report. Called "
        "again it goes on where it stopped: finished predictions and trajectories are kept."
    )
    parser.epilog = (
        "Settings of the config are overridden with --section.option=value, for example "
        "--optim.eval_batch_size=16 or --evaluation.s2ef.id=data/oc20/s2ef/val_id."
    )
    parser.add_argument("checkpoint", type=Path, help="best_checkpoint.pt or checkpoint.pt")
    parser.add_argument(
        "--config-yml",
        type=Path,
        required=True,
        help="what to evaluate on: configs/oc20/evaluate.yml, configs/oc22/evaluate.yml, or your "
        "own; the model's part comes from the checkpoint",
    )
    parser.add_argument(
        "--out", type=Path, help="folder (default: evaluations/NAME, of the checkpoint's folder)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="RUN",
        help="only these runs, predict-id or relax-ood_ads for example, and nothing after them; "
        "other runs of the evaluation can be at work at the same time",
    )
    parser.add_argument(
        "--list",
        action="store_true",
        help="print the names of the runs that are not done, one a line, and end (for job arrays)",
    )
    parser.add_argument(
        "--collect",
        action="store_true",
        help="run nothing; take over what SLURM jobs have finished, then score and write",
    )
    parser.add_argument(
        "--at-a-time", type=int, default=1, metavar="N", help="runs side by side on this machine"
    )
    parser.add_argument("--no-report", action="store_true", help="write no report")
    fairchem = parser.add_argument_group("each run", "as of fairchem main")
    for action in flags.get_parser()._actions:
        if action.dest in _HANDED_ON:
            fairchem._add_action(action)
    parser.set_defaults(overrides=[])


def run(args: argparse.Namespace) -> int:
    """Evaluate.

    Raises:
        DensError: a mistake in options, config or checkpoint; a run that failed.
    """
    checkpoint = checkpoint_files.read(args.checkpoint, torch.device("cpu"))
    settings = load_settings(args.config_yml, checkpoint, args.overrides)
    folder = EvaluationFolder((args.out or _default_folder(args.checkpoint)).resolve())
    if args.at_a_time < 1:
        raise DensError(f"--at-a-time: {args.at_a_time} is not a number of runs; give 1 or more")
    if ranks.of_environment(os.environ) is not None:
        raise DensError(
            "dens-ocp evaluate starts its runs itself: call it once, without srun or torchrun, and "
            "give --num-gpus"
        )
    if not args.list and not args.collect:
        processor.choose(args)
    options = RunOptions(
        _handed_on(args), args.at_a_time, 1 if args.cpu and args.at_a_time > 1 else None
    )
    named = select(jobs_of(settings, folder), args.only)
    if args.list:
        for job in named:
            if not job.result.is_file():
                print(job.name)
        return 0
    with folder.locked(_say, args.only) as locks:
        jobs = prepare(settings, args.checkpoint, sha256(args.checkpoint), folder)
        chosen = select(jobs, args.only)
        if not args.collect:
            submitted = run_jobs(chosen, args.checkpoint.resolve(), options, locks, _say)
            if submitted:
                _say("submitted: " + ", ".join(submitted))
                _say("when they are done: the same command with --collect in place of --submit")
                return 0
        missing = unfinished(chosen)
        if missing:
            raise DensError(
                f"{len(missing)} of {len(chosen)} runs are not done: "
                f"{', '.join(job.name for job in missing)}; their output is in "
                f"{folder.output('*').parent}"
            )
        if args.only:
            _say(f"done: {', '.join(job.name for job in chosen)}")
            return 0
        conclude(settings, folder, report=not args.no_report, say=_say)
        return 0


def _default_folder(checkpoint: Path) -> Path:
    return Path("evaluations") / checkpoint.resolve().parent.name


def _handed_on(args: argparse.Namespace) -> tuple[str, ...]:
    """The options of fairchem that were changed from their defaults."""
    words: list[str] = []
    parser = flags.get_parser()
    for name in _HANDED_ON:
        value: Any = getattr(args, name)
        if value == parser.get_default(name):
            continue
        option = "--" + name.replace("_", "-")
        words += [option] if value is True else [option, str(value)]
    return tuple(words)


def _say(line: str) -> None:
    tqdm.write(line)
