"""A config file for training and evaluation on a converted data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

_RECIPE = Path(__file__).with_name("config.yml").read_text()

RECIPE_CUTOFF = float(yaml.safe_load(_RECIPE)["model"]["max_radius"])
"""Angstrom."""


def sections_text(root: Path, described: dict[str, Any]) -> str:
    """The sections ``dataset`` and ``evaluation`` of a config, as YAML.

    Args:
        root: folder of the data set. described: what its ``dataset.json`` says.
    """
    from dens_ocp.settings.defaults import KEY_MAPPING

    folders = {split: str(root / split) for split in described["split"]}
    dataset: dict[str, Any] = {
        "train": {
            "format": "dens_lmdb",
            "src": folders["train"],
            "key_mapping": dict(KEY_MAPPING),
            "transforms": {"normalizer": described["normalizer"]},
        }
    }
    if "val" in folders:
        dataset["val"] = {"src": folders["val"]}
    sections = {"dataset": dataset}
    scored = next((split for split in ("test", "val") if split in folders), None)
    if scored is not None:
        sections["evaluation"] = {"s2ef": {scored: folders[scored]}}
    return yaml.safe_dump(sections, sort_keys=False)


def config_text(root: Path, described: dict[str, Any], cutoff: float) -> str:
    """YAML of a run: the recipe in ``config.yml`` with the model's cutoff (Angstrom) and number of
    elements (OC20's 90, or more), paths, normalizer and evaluation."""
    recipe = _RECIPE
    elements = max(90, described["largest_atomic_number"] + 1)
    for name, value in (("max_radius", cutoff), ("max_num_elements", elements)):
        recipe, number = re.subn(rf"(?m)^(  {name}: )[\d.]+", rf"\g<1>{value}", recipe)
        assert number == 1, name
    return f"{recipe}\n{sections_text(root, described)}"
