"""What our commands read beside click's options: overrides, several values, fairchem's options."""

import sys

import click
import pytest

from dens_ocp.errors import DensError
from dens_ocp.settings.command_line import Command, changed, fairchem_options, fairchem_parser

NAMES = ("cpu", "num_gpus", "amp", "slurm_partition")


@click.command(cls=Command, overrides=True)
@click.argument("files", nargs=-1)
@click.option("--only", multiple=True)
@click.option("--out")
@click.option("--yes/--no")
@fairchem_options(*NAMES)
def command(**options):
    return options


def parsed(*words):
    with command.make_context("x", list(words)) as context:
        return command.invoke(context)


@pytest.mark.parametrize(
    ("words", "files", "only", "overrides"),
    [
        (["a", "b"], ("a", "b"), (), []),
        (["a", "--only", "b", "c", "--out", "d", "e"], ("a", "e"), ("b", "c"), []),
        (["--only", "a", "--only", "b", "c"], (), ("a", "b", "c"), []),
        (["--only", "a", "--yes", "b"], ("b",), ("a",), []),
        (["--only=a", "b"], ("b",), ("a",), []),
        (["--optim.lr=1", "a", "--trainer=dens"], ("a",), (), ["--optim.lr=1", "--trainer=dens"]),
        (["a", "--only", "b", "--a.b=c=d", "e"], ("a", "e"), ("b",), ["--a.b=c=d"]),
        (["--out=a", "b"], ("b",), (), []),
    ],
)
def test_words(words, files, only, overrides):
    found = parsed(*words)
    assert (found["files"], found["only"], found["overrides"]) == (files, only, overrides)


def test_words_that_are_wrong():
    with pytest.raises(DensError, match="'--optim.lr' is not an option of fairchem.*="):
        parsed("--optim.lr", "3")
    with pytest.raises(click.NoSuchOption, match="--onlyy"):
        parsed("--onlyy", "3")


def test_options_of_fairchem():
    given = parsed("--num-gpus", "2", "--amp")
    assert (given["num_gpus"], given["amp"], given["cpu"]) == (2, True, False)
    assert changed(given, *NAMES) == ["--amp", "--num-gpus", "2"]  # in fairchem's order
    assert changed(parsed(), *NAMES) == []
    args = fairchem_parser().parse_args(["--config-yml", "x", *changed(given, *NAMES)])
    assert (args.num_gpus, args.amp, args.cpu, args.slurm_partition) == (2, True, False, None)
    with pytest.raises(click.BadParameter, match="'two' is not a valid int"):
        parsed("--num-gpus", "two")


def test_the_parser_is_fairchems_own():
    from fairchem.core.common.flags import flags

    def options(parser):
        return [(action.option_strings, action.default, action.type) for action in parser._actions]

    known = options(fairchem_parser())
    kept = sys.modules.pop("fairchem.core.common.flags")
    try:
        without = options(fairchem_parser())
    finally:
        sys.modules["fairchem.core.common.flags"] = kept
    assert known == without == options(flags.get_parser())
