"""A YAML config with its includes, as fairchem reads it, and what can be wrong with the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from fairchem.core.common.utils import load_config

from dens_ocp.errors import DensError
from dens_ocp.settings import recipes

SPLIT_OF_MODE = {
    "train": "train",
    "validate": "val",
    "predict": "test",
    "run-relaxations": "relax",
}


def read(path: str | Path, option: str = "") -> dict[str, Any]:
    """The config of a file.

    Args:
        path: of the file.
        option: the name by which the user gave it, ``--config-yml``; starts the messages.

    Raises:
        DensError: no such file, not YAML, no mapping; includes that are missing or contradict each
            other.
    """
    named = f"{option}: " if option else ""
    no_config = f"{named}{path} holds no sections of a config; start from a file in configs/"
    try:
        config, _, twice = load_config(path)
    except FileNotFoundError as error:
        missing = error.filename or path
        fix = recipes.instead_of(missing) or "correct the path"
        raise DensError(f"{named}{missing} does not exist; {fix}") from None
    except yaml.YAMLError as error:
        raise DensError(f"{named}{path} is not valid YAML: {error}") from None
    except (AttributeError, TypeError):  # an empty file
        raise DensError(no_config) from None
    except (ValueError, OSError) as error:
        raise DensError(
            f"{named}{path} cannot be read as a config, a mapping of sections: {error}"
        ) from None
    if not config:
        raise DensError(no_config)
    if twice:
        raise DensError(f"{named}{path}: two of its includes contradict each other in {twice}")
    return config


def check_needed_data(mode: str, config: Mapping[str, Any]) -> None:
    """Make sure that the config names the data set of the mode; without it fairchem ends in an
    AssertionError after the set-up.

    Args:
        mode: of ``fairchem main``.
        config: with ``dataset`` as sections by split; other layouts (fairchem's old list) are left
            to fairchem.

    Raises:
        DensError: it does not.
    """
    sections = config.get("dataset") or {}
    if not isinstance(sections, Mapping) or "src" in sections:
        return
    split = SPLIT_OF_MODE[mode]
    if not (sections.get(split) or {}).get("src"):
        raise DensError(
            f"dataset.{split} is missing: --mode {mode} needs a data set; give for example "
            f"--dataset.{split}.src=PATH (and its format, if it is not lmdb)"
        )
