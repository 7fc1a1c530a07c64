"""Words of a command line that click does not know by itself: overrides of a config, options with
several values, and the options of ``fairchem main`` that a command hands on."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from dens_ocp.settings.overrides import check

_FLAGS = "fairchem.core.common.flags"


class Command(click.Command):
    """A click command with two things more.

    An option with ``multiple=True`` takes all words up to the next option: ``--only a b``. With
    ``overrides=True``, words like ``--optim.lr_initial=0.1``, or any ``--name=value`` that is no
    option of the command, arrive as the parameter ``overrides``, a list.

    Raises:
        DensError: an override without ``=``.
    """

    def __init__(self, *args: Any, overrides: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.overrides = overrides

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own = {
            word: isinstance(parameter, click.Option) and parameter.multiple
            for parameter in self.get_params(ctx)
            for word in (*parameter.opts, *parameter.secondary_opts)
        }
        words: list[str] = []
        overrides: list[str] = []
        option = ""  # the last one, if it takes several words and has one already
        for word in args:
            name, equals, _ = word.partition("=")
            is_option = word.startswith("--")
            if self.overrides and is_option and name not in own and (equals or "." in name):
                overrides.append(word)
                option = ""
            elif is_option:
                words.append(word)
                option = ""
            else:
                words += [option, word] if option else [word]
                option = option or (words[-2] if own.get("".join(words[-2:-1])) else "")
        if self.overrides:
            check(overrides)
            ctx.params["overrides"] = overrides
        return super().parse_args(ctx, words)


def fairchem_parser() -> argparse.ArgumentParser:
    """The parser of ``fairchem main``, without an import of fairchem and torch, which takes
    seconds: its file needs nothing of either.

    Raises:
        ImportError: fairchem is not installed.
    """
    module = sys.modules.get(_FLAGS)
    if module is None:
        package = importlib.util.find_spec("fairchem")
        for folder in [] if package is None else package.submodule_search_locations or []:
            path = Path(folder, "core", "common", "flags.py")
            spec = importlib.util.spec_from_file_location("dens_ocp._fairchem_flags", path)
            if path.is_file() and spec is not None and spec.loader is not None:
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
    if module is None:
        raise ImportError(f"No module named {_FLAGS!r}")
    return module.Flags().get_parser()


def fairchem_options(*names: str) -> Callable[[Any], Any]:
    """A decorator: the command has these options of ``fairchem main``, by their names in Python.

    Types, defaults and help are fairchem's; :func:`changed` makes words of them again.
    """

    def add(function: Any) -> Any:
        for action in reversed(_actions(names)):
            function = click.option(
                *action.option_strings,
                is_flag=action.nargs == 0,
                type=None if action.nargs == 0 else action.type,
                default=action.default,
                show_default=action.nargs != 0 and action.default is not None,
                help=f"{(action.help or '').partition(' (default')[0]} (as in fairchem main)",
            )(function)
        return function

    return add


def changed(options: Mapping[str, Any], *names: str) -> list[str]:
    """The words of ``fairchem main`` for options whose values are not fairchem's defaults."""
    words: list[str] = []
    for action in _actions(names):
        value = options[action.dest]
        if value != action.default:
            words += [action.option_strings[0], *([] if value is True else [str(value)])]
    return words


def _actions(names: tuple[str, ...]) -> list[argparse.Action]:
    return [action for action in fairchem_parser()._actions if action.dest in names]
