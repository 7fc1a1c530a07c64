"""Overrides of a config, ``--section.option=value``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from dens_ocp.errors import DensError


def check(overrides: Sequence[str]) -> None:
    """Make sure that each has a name and a value.

    Raises:
        DensError: one has not.
    """
    for override in overrides:
        name, equals, _ = override.partition("=")
        if not name.removeprefix("--") or not override.startswith("--") or not equals:
            raise DensError(
                f"{override!r} is not an option of fairchem; to override a setting of the "
                "config, write --section.option=value, for example --optim.lr_initial=0.0004"
            )


def as_sections(overrides: Sequence[str]) -> dict[str, Any]:
    """The overrides as a config; values as fairchem reads them (``common/utils.py:384``).

    The value begins after the first ``=``, so a path may contain another one, at which fairchem's
    own ``create_dict_from_args`` ends with a ValueError.
    """
    from fairchem.core.common.utils import dict_set_recursively, parse_value

    check(overrides)
    sections: dict[str, Any] = {}
    for override in overrides:
        name, _, value = override.removeprefix("--").partition("=")
        try:
            dict_set_recursively(sections, name.split("."), parse_value(value))
        except TypeError:
            raise DensError(
                f"{override!r}: an earlier override gives a part of {name} a value; keep only "
                "one of the two"
            ) from None
    return sections


def applied(config: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """``config`` with the overrides."""
    from fairchem.core.common.utils import merge_dicts

    return merge_dicts(config, as_sections(overrides))[0] if overrides else config


def understood(build_config: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """fairchem's ``build_config`` with the overrides read by :func:`as_sections`."""

    @wraps(build_config)
    def build(args: argparse.Namespace, overrides: list[str], *more: Any) -> dict[str, Any]:
        return applied(build_config(args, [], *more), overrides)

    return build
