"""Which data set a mode needs; without it fairchem ends in an AssertionError after the set-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dens_ocp.errors import DensError

SPLIT_OF_MODE = {
    "train": "train",
    "validate": "val",
    "predict": "test",
    "run-relaxations": "relax",
}


def check(mode: str, config: Mapping[str, Any]) -> None:
    """Make sure that the config names the data set of the mode.

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
            f"--dataset.{split}.src=PATH (and format: lmdb, where it is no lmdb)"
        )
