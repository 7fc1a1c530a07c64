"""Command lines: ``dens-ocp``, and a ``fairchem`` that knows this plugin.

Our ``fairchem`` is fairchem-core's with two things more: it imports :mod:`dens_ocp` first, so
short names work (``trainer: dens``), and it takes the word ``main`` in front
(``fairchem main --mode train ...``).
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import dens_ocp
from dens_ocp.errors import DensError, nearest, no_place
from dens_ocp.settings.overrides import check as check_overrides
from dens_ocp.tools.closed_pipe import ends_with_its_reader

_MAIN_HELP = "fairchem with this plugin: train, validate, predict, run-relaxations"

COMMANDS = {
    "data": (
        "dens_ocp.tools.data.command",
        "MD17, extended XYZ and any ASE file become data sets to train on",
    ),
    "evaluate": (
        "dens_ocp.results.pipeline.command",
        "predict on all splits, relax, score, write leaderboard files and a report",
    ),
    "ablate": (
        "dens_ocp.tools.ablate.command",
        "train variants with several seeds, one after the other or on SLURM, and compare them",
    ),
    "submission": ("dens_ocp.results.leaderboard.submission", "make and check leaderboard files"),
    "score": (
        "dens_ocp.results.scores.score",
        "scores of predictions and relaxations, as the boards",
    ),
    "export": ("dens_ocp.tools.export.command", "a DeNS checkpoint becomes one of stock fairchem"),
    "demo": (
        "dens_ocp.tools.demo.run",
        "make a small OC20-like data set, train on it, evaluate, draw",
    ),
    "report": (
        "dens_ocp.results.report.command",
        "one HTML page about a training run and its evaluation: is it good?",
    ),
    "doctor": (
        "dens_ocp.tools.doctor.command",
        "check the installation and, given a config, its data; say what to do",
    ),
    "plan": (
        "dens_ocp.tools.plan.command",
        "memory, steps, time and GPU-hours of a training run on GPUs that are not here",
    ),
}
"""Commands of ``dens-ocp`` beside ``main``: module and summary."""

GOES_ON = ("evaluate", "ablate", "demo")
"""Those of them that go on where they were interrupted."""


@ends_with_its_reader
def fairchem_main(argv: list[str] | None = None) -> int:
    """The ``fairchem`` script: arguments of fairchem-core's, optionally after the word ``main``.

    Returns:
        0, or 2 after a mistake of the user's, which is printed without a stack trace.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["main"]:
        argv = argv[1:]
    if dens_ocp.broken_installation is not None:
        return _refuse(dens_ocp.broken_installation)
    from fairchem.core.common.flags import flags

    from dens_ocp.settings import needed_data
    from dens_ocp.settings.configured_references import keeping_settings

    parser = flags.get_parser()
    parser.prog = "fairchem main"
    args, overrides = parser.parse_known_args(argv)
    try:
        _check_arguments(args, overrides)
        overrides = keeping_settings(overrides)
        config = _config(args.config_yml, overrides)
        _check_settings(config)
        needed_data.check(args.mode, config)
        return _run(args, [*overrides, *_dotted_trainer(config)])
    except (DensError, OSError) as error:
        told = error if isinstance(error, DensError) else no_place(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted()


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
    from dens_ocp.settings import overrides as given

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
            return _interrupted()
        raise
    except SignalException as stopped:
        print(f"error: stopped by {stopped.sigval.name}, and so are the ranks", file=sys.stderr)
        return 128 + stopped.sigval
    return 0


def _interrupted(then: str = "") -> int:
    print(f"interrupted{then}", file=sys.stderr)
    return 128 + signal.SIGINT


def _refuse(error: Exception) -> int:
    (reason, *_) = str(error).splitlines() or [""]
    print(
        f"error: fairchem cannot be used here ({type(error).__name__}: {reason}); `dens-ocp "
        "doctor` says what is wrong with the installation and how to repair it",
        file=sys.stderr,
    )
    return 2


def _check_arguments(args: argparse.Namespace, overrides: list[str]) -> None:
    if args.mode is None:
        raise DensError("--mode is missing: train, validate, predict or run-relaxations")
    if not Path(args.config_yml).is_file():
        raise DensError(f"--config-yml: {args.config_yml} does not exist")
    if args.mode != "train" and not args.checkpoint:
        raise DensError(f"--checkpoint is missing: --mode {args.mode} needs a trained model")
    check_overrides(overrides)


def _config(config_yml: Path, overrides: list[str]) -> dict[str, Any]:
    """The config as fairchem will see it."""
    from dens_ocp.settings import config_file
    from dens_ocp.settings import overrides as given

    return given.applied(config_file.read(config_yml, "--config-yml"), overrides)


def _check_settings(config: dict[str, Any]) -> None:
    """Mistakes in the config of a run of ours, found before any process is started."""
    from fairchem.core.common.registry import registry
    from fairchem.core.common.utils import setup_imports

    from dens_ocp.registration import TRAINER_NAMES
    from dens_ocp.settings import run
    from dens_ocp.training.trainer import DOTTED_NAME

    name = str(config.get("trainer") or "ocp")
    if name in (*TRAINER_NAMES, DOTTED_NAME):
        run.checked(config)
        return
    if "multitask" not in name:
        run.check_names(config, every=False)
    known = registry.mapping["trainer_name_mapping"]
    if "." not in name and name not in known:
        setup_imports()
        if name not in known:
            raise DensError(f"trainer: {name!r} is not known{nearest(name, known)}; write dens")


def _dotted_trainer(config: dict[str, Any]) -> list[str]:
    """Processes started by fairchem (ranks, SLURM jobs) import the trainer by its dotted name."""
    from dens_ocp.registration import TRAINER_NAMES
    from dens_ocp.training.trainer import DOTTED_NAME

    return [f"--trainer={DOTTED_NAME}"] if config.get("trainer") in TRAINER_NAMES else []


@ends_with_its_reader
def main(argv: list[str] | None = None) -> int:
    """The ``dens-ocp`` script: ``main`` is fairchem's, the others are modules of ours with
    ``add_arguments(parser)`` and ``run(args) -> int``; only the one that is called is imported."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["main"]:
        return fairchem_main(argv)
    called = next(iter(argv), None)
    if dens_ocp.broken_installation is not None and called in COMMANDS and called != "doctor":
        return _refuse(dens_ocp.broken_installation)
    parser = argparse.ArgumentParser(
        prog="dens-ocp",
        description="DeNS (denoising non-equilibrium structures) for fairchem/OCP.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    commands.add_parser("main", help=_MAIN_HELP, add_help=False)
    module = None
    for name, (module_name, summary) in COMMANDS.items():
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        if argv[:1] == [name]:
            module = importlib.import_module(module_name)
            module.add_arguments(command)
    args, overrides = parser.parse_known_args(argv)
    try:
        if overrides and "overrides" not in args:
            parser.error(f"unrecognized arguments: {' '.join(overrides)}")
        check_overrides(overrides)
        args.overrides = overrides
        return module.run(args)
    except (DensError, OSError) as error:
        told = error if isinstance(error, DensError) else no_place(error)
        if told is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _interrupted("; the same command goes on" if args.command in GOES_ON else "")


if __name__ == "__main__":
    sys.exit(main())
