"""Command lines: ``dens-ocp``, and a ``fairchem`` that knows this plugin.

Our ``fairchem`` is fairchem-core's with two things more: it imports :mod:`dens_ocp` first, so
short names work (``trainer: dens``), and it takes the word ``main`` in front
(``fairchem main --mode train ...``).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import yaml

from dens_ocp.errors import DensError

_KEPT_ALIVE: list[Any] = []

_MAIN_HELP = "fairchem with this plugin: train, validate, predict, run-relaxations"

COMMANDS = {
    "evaluate": (
        "dens_ocp.pipeline.command",
        "predict on all splits, relax, score, write leaderboard files and a report",
    ),
    "submission": ("dens_ocp.evaluation.submission", "make and check leaderboard files"),
    "score": ("dens_ocp.evaluation.score", "scores of predictions and relaxations, as the boards"),
    "export": ("dens_ocp.export.command", "a DeNS checkpoint becomes one of stock fairchem"),
    "demo": ("dens_ocp.demo.run", "make a small OC20-like data set, train on it, evaluate, draw"),
    "report": (
        "dens_ocp.report.command",
        "one HTML page about a training run and its evaluation: is it good?",
    ),
}
"""Commands of ``dens-ocp`` beside ``main``: module and summary."""


def fairchem_main(argv: list[str] | None = None) -> int:
    """The ``fairchem`` script: arguments of fairchem-core's, optionally after the word ``main``.

    Returns:
        0, or 2 after a mistake of the user's, which is printed without a stack trace.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["main"]:
        argv = argv[1:]
    from fairchem.core.common.flags import flags

    parser = flags.get_parser()
    parser.prog = "fairchem main"
    args, overrides = parser.parse_known_args(argv)
    try:
        _check_arguments(args, overrides)
        import fairchem.core._cli as fairchem_cli
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

        from dens_ocp.host import signals
        from dens_ocp.host.rendezvous import local_launch_config

        # what fairchem runs in this process, or in the ranks that it starts
        fairchem_cli.runner_wrapper = run_rank
        fairchem_cli.LaunchConfig = local_launch_config
        starts_ranks = args.mode == "train" and args.num_gpus > 1 and not args.submit
        try:
            with signals.passed_on() if starts_ranks else nullcontext():
                fairchem_cli.main(args, [*overrides, *_dotted_trainer(args.config_yml, overrides)])
        except ChildFailedError as failed:
            if any(failure.exitcode == 2 for failure in failed.failures.values()):
                return 2  # the rank has said why
            raise
    except DensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run_rank(config: dict[str, Any]) -> None:
    """Run one rank of a job; a mistake of the user's ends it with a message and exit code 2.

    Args:
        config: fairchem's config of the run.
    """
    from fairchem.core._cli import Runner

    import dens_ocp  # noqa: F401 (registers, in each rank)
    from dens_ocp.host import signals

    # The trainer lives until the process ends. Freed here, its process group joins gloo's thread
    # while this one holds the interpreter lock, which gloo's may be waiting for to free a tensor:
    # on a busy machine a finished rank then hangs (fairchem's runner_wrapper frees it).
    if config["mode"] == "train":
        signals.listen()
    runner = Runner()
    _KEPT_ALIVE.append(runner)
    try:
        runner(config)
    except DensError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from None


def _check_arguments(args: argparse.Namespace, overrides: list[str]) -> None:
    if args.mode is None:
        raise DensError("--mode is missing: train, validate, predict or run-relaxations")
    if not Path(args.config_yml).is_file():
        raise DensError(f"--config-yml: {args.config_yml} does not exist")
    if args.mode != "train" and not args.checkpoint:
        raise DensError(f"--checkpoint is missing: --mode {args.mode} needs a trained model")
    _check_overrides(overrides)


def _check_overrides(overrides: list[str]) -> None:
    for override in overrides:
        if not override.startswith("--") or override.count("=") != 1:
            raise DensError(
                f"{override!r} is not an option of fairchem; settings of the config file are "
                "overridden with --section.option=value, for example --optim.lr_initial=0.0004"
            )


def _dotted_trainer(config_yml: Path, overrides: list[str]) -> list[str]:
    """Processes started by fairchem (ranks, SLURM jobs) import the trainer by its dotted name."""
    from fairchem.core.common.utils import load_config

    from dens_ocp.registration import TRAINER_NAMES
    from dens_ocp.trainer import DOTTED_NAME

    try:
        trainer = load_config(config_yml)[0].get("trainer")
    except yaml.YAMLError as error:
        raise DensError(f"--config-yml: {config_yml} is not valid YAML: {error}") from None
    for override in overrides:
        if override.startswith("--trainer="):
            trainer = override.partition("=")[2]
    return [f"--trainer={DOTTED_NAME}"] if trainer in TRAINER_NAMES else []


def main(argv: list[str] | None = None) -> int:
    """The ``dens-ocp`` script: ``main`` is fairchem's, the others are modules of ours with
    ``add_arguments(parser)`` and ``run(args) -> int``; only the one that is called is imported."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ["main"]:
        return fairchem_main(argv)
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
        _check_overrides(overrides)
        args.overrides = overrides
        return module.run(args)
    except DensError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
