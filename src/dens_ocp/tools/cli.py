"""Command lines: ``dens-ocp``, and a ``fairchem`` that knows this plugin.

Our ``fairchem`` is fairchem-core's with two things more: it imports :mod:`dens_ocp` first, so
short names work (``trainer: dens``), and it takes the word ``main`` in front
(``fairchem main --mode train ...``).
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys
import warnings

import click

from dens_ocp.errors import DensError, no_place

READER_LEFT = 141
"""What a shell reports for a program that SIGPIPE ended (``dens-ocp ... | head``): 128 + 13."""

COMMANDS = {
    "main": (
        "dens_ocp.tools.fairchem_command",
        "run fairchem with this plugin: train, validate, predict, run-relaxations",
    ),
    "data": (
        "dens_ocp.tools.data.command",
        "convert MD17, MPtrj, extended XYZ and other ASE files to data sets for training",
    ),
    "evaluate": (
        "dens_ocp.tools.evaluate",
        "predict on all splits, relax, score, write leaderboard files and a report",
    ),
    "ablate": (
        "dens_ocp.tools.ablate.command",
        "train variants with several seeds, one after the other or on SLURM, and compare them",
    ),
    "submission": ("dens_ocp.tools.submission", "make and check leaderboard files"),
    "score": (
        "dens_ocp.tools.score",
        "compute the scores of predictions and relaxations as the leaderboards do",
    ),
    "compare": (
        "dens_ocp.tools.compare",
        "compare the scores of several evaluations in one table, e.g. with and without DeNS",
    ),
    "export": (
        "dens_ocp.tools.export.command",
        ("convert a DeNS checkpoint to a checkpoint of stock fairchem"),
    ),
    "demo": (
        "dens_ocp.tools.demo.run",
        "make a small OC20-like data set, train on it, evaluate, write a report",
    ),
    "report": (
        "dens_ocp.tools.report",
        "write an HTML report on the quality of a training run and its evaluation",
    ),
    "recipes": (
        "dens_ocp.tools.recipes",
        "list the recipes that come with this package, or copy one to edit it",
    ),
    "options": (
        "dens_ocp.tools.options",
        "print the options of a config's sections, with defaults and meaning",
    ),
    "doctor": (
        "dens_ocp.tools.doctor.command",
        "check the installation and, if given, a config and its data; say how to fix problems",
    ),
    "plan": (
        "dens_ocp.tools.plan.command",
        "estimate memory, steps, time and GPU-hours of a training run on GPUs you name",
    ),
}
"""Commands of ``dens-ocp``: module, which is imported when the command is called, and summary."""

OF_COMMANDS = {"relax-cells": "dens_ocp.tools.relax_cells"}
"""Modules of commands that other commands call; the help does not list them."""

GOES_ON = ("evaluate", "ablate", "demo")
"""Those of them that go on where they were interrupted."""


class _Commands(click.Group):
    """:data:`COMMANDS`; each module has a click ``command``."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module_name = OF_COMMANDS.get(cmd_name) or COMMANDS.get(cmd_name, (None,))[0]
        if module_name is None:
            return None
        return importlib.import_module(module_name).command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


_GROUP = _Commands(
    "dens-ocp",
    commands=dict.fromkeys(COMMANDS),  # type: ignore[arg-type]  # for click's "did you mean"
    help="DeNS (denoising non-equilibrium structures) for fairchem/OCP.",
    no_args_is_help=False,
    context_settings={
        "help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100,
    },
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """The ``dens-ocp`` script.

    Returns:
        The exit code: what the command returns, 2 after a mistake of the user's, which is printed
        as one line ``error: ...`` without a stack trace, 130 after Ctrl-C, and
        :data:`READER_LEFT` if nobody reads the output any more.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            with warnings.catch_warnings():
                # fairchem reads files of its own with torch.load and no weights_only
                warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
                with _GROUP.make_context("dens-ocp", argv) as context:
                    return _GROUP.invoke(context) or 0
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _nobody_reads_stdout():
            raise
        # what is still buffered must not fail again when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_LEFT
    except click.exceptions.Exit as end:
        return end.exit_code
    except KeyboardInterrupt:
        goes_on = argv[:1] and argv[0] in GOES_ON
        print(
            f"interrupted{'; run the same command again to resume' if goes_on else ''}",
            file=sys.stderr,
        )
        return 128 + signal.SIGINT
    except Exception as error:
        message = _told(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 2


def fairchem_main(argv: list[str] | None = None) -> int:
    """The ``fairchem`` script: arguments of fairchem-core's, optionally after the word ``main``."""
    argv = list(sys.argv[1:] if argv is None else argv)
    return main(argv if argv[:1] == ["main"] else ["main", *argv])


def _told(error: Exception) -> str | None:
    """What the user has to know; None: a fault of the program, which needs its stack trace."""
    if isinstance(error, DensError):
        return str(error)
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        path = "dens-ocp" if context is None else context.command_path
        return f"{error.format_message()} (see `{path} --help`)"
    if isinstance(error, OSError) and (told := no_place(error)) is not None:
        return str(told)
    if "fairchem.core" not in sys.modules and not _fairchem_is_usable():
        (reason, *_) = str(error).splitlines() or [""]
        return (
            f"fairchem cannot be used here ({type(error).__name__}: {reason}); `dens-ocp doctor` "
            "finds what is wrong with the installation and says how to repair it"
        )
    return None


def _fairchem_is_usable() -> bool:
    try:
        importlib.import_module("fairchem.core")
    except Exception:
        return False
    return True


def _nobody_reads_stdout() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


if __name__ == "__main__":
    sys.exit(main())
