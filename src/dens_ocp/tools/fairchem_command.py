"""``dens-ocp main`` and the ``fairchem`` script: fairchem's own arguments, this plugin's checks."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from dens_ocp.errors import DensError, nearest
from dens_ocp.settings import overrides as given
from dens_ocp.settings import recipes
from dens_ocp.settings.command_line import fairchem_parser

_DENS_OF_FAIRCHEM = ("equiformerv2_dens", "mlip_dens_trainer")


@click.command(
    "main",
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
def command(words: tuple[str, ...]) -> int:
    """Run what ``words`` say, as fairchem's own parser reads them."""
    parser = fairchem_parser()
    parser.prog = "fairchem main"
    args, overrides = parser.parse_known_args(words)
    args.config_yml = recipes.resolved(str(args.config_yml))
    _check_arguments(args, overrides)

    from dens_ocp.settings import config_file
    from dens_ocp.settings.configured_references import keeping_settings

    overrides = keeping_settings(overrides)
    config = given.applied(config_file.read(args.config_yml, "--config-yml"), overrides)
    _check_settings(config)
    config_file.check_needed_data(args.mode, config)
    return _run(args, [*overrides, *_dotted_trainer(config)])


def _run(args: argparse.Namespace, overrides: list[str]) -> int:
    """One rank here, if srun or torchrun has started this process; else fairchem's main, which
    runs one rank here, starts several on this machine, or submits."""
    import fairchem.core._cli as fairchem_cli
    import torch
    from fairchem.core.common.utils import build_config
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from dens_ocp.launch import processor, rank_process, ranks, signals, slurm
    from dens_ocp.launch.data_workers import keeping_num_workers
    from dens_ocp.launch.rendezvous import local_launch_config
    from dens_ocp.launch.timestamps import unique_timestamp
    from dens_ocp.patched import swapped

    build_config = given.understood(build_config)
    rank = None if args.submit else ranks.of_environment(os.environ)
    processor.choose(args, say=rank is None or rank.rank == 0)
    if rank is not None:
        rank_process.run_launched_rank(ranks.joining(build_config(args, overrides), rank))
        return 0
    if args.mode == "train" and not args.submit:
        if not args.timestamp_id:
            args.timestamp_id = unique_timestamp(torch.device("cpu"), args.identifier)
        rank_process.set_up_log()
        rank_process.say_what_begins(vars(args))
    fairchem_cli.runner_wrapper = rank_process.run_rank
    fairchem_cli.LaunchConfig = local_launch_config
    fairchem_cli.AutoExecutor = partial(slurm.ClusterExecutor, cpu=args.cpu)
    fairchem_cli.Runner = slurm.SubmittedRun
    starts_ranks = args.mode == "train" and args.num_gpus > 1 and not args.submit
    try:
        with (
            swapped(fairchem_cli, "build_config", keeping_num_workers(build_config)),
            signals.passed_on() if starts_ranks else nullcontext(),
        ):
            fairchem_cli.main(args, overrides)
    except ChildFailedError as failed:
        if any(failure.exitcode == 2 for failure in failed.failures.values()):
            return 2  # the rank has said why
        if signals.was_interrupted_again():
            print("interrupted", file=sys.stderr)
            return 128 + signal.SIGINT
        raise
    except SignalException as stopped:
        print(
            f"error: stopped by {stopped.sigval.name}; all ranks were stopped too", file=sys.stderr
        )
        return 128 + stopped.sigval
    return 0


def _check_arguments(args: argparse.Namespace, overrides: list[str]) -> None:
    if args.mode is None:
        raise DensError("--mode is missing; give train, validate, predict or run-relaxations")
    if not Path(args.config_yml).is_file():
        fix = recipes.instead_of(args.config_yml) or "correct the path"
        raise DensError(f"--config-yml: {args.config_yml} does not exist; {fix}")
    if args.mode != "train" and not args.checkpoint:
        raise DensError(f"--checkpoint is missing: --mode {args.mode} needs a trained model")
    given.check(overrides)


def _check_settings(config: dict[str, Any]) -> None:
    """Mistakes in the config of a run of ours, found before any process is started."""
    from dens_ocp.registration import TRAINER_NAMES
    from dens_ocp.settings import run
    from dens_ocp.settings.sections.values import registered
    from dens_ocp.training.trainer import DOTTED_NAME

    name = str(config.get("trainer") or "ocp")
    if name in (*TRAINER_NAMES, DOTTED_NAME):
        run.checked(config)
        return
    if "multitask" not in name:
        run.check_names(config, every=False)
    if "." not in name and name not in (known := registered("trainer", name)):
        raise DensError(f"trainer: {name!r} is not known{nearest(name, known)}; write dens")
    _warn_of_unused_dens(config, name)


def _warn_of_unused_dens(config: dict[str, Any], trainer: str) -> None:
    """Options of DeNS that the trainer of the config does not read, or reads in its own way."""
    from dens_ocp.dens.config import parse_dens_config

    optim = config.get("optim")
    try:
        options = parse_dens_config(optim) if isinstance(optim, dict) else None
    except DensError:  # they are the other trainer's to judge
        return
    if options is None or not options.active:
        return
    key = "optim.dens" if "dens" in optim else "optim.use_denoising_pos"
    if trainer in _DENS_OF_FAIRCHEM:
        problem = (
            "is fairchem's own trainer, which adds the force loss twice in DeNS batches "
            "(docs/differences.md)"
        )
    else:
        problem = f"does not read {key}, so the run trains without DeNS"
    print(f"warning: trainer: {trainer} {problem}; write trainer: dens", file=sys.stderr)


def _dotted_trainer(config: dict[str, Any]) -> list[str]:
    """Processes started by fairchem (ranks, SLURM jobs) import the trainer by its dotted name."""
    from dens_ocp.registration import TRAINER_NAMES
    from dens_ocp.training.trainer import DOTTED_NAME

    return [f"--trainer={DOTTED_NAME}"] if config.get("trainer") in TRAINER_NAMES else []
