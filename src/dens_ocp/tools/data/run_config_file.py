"""A config file for training and evaluation on a converted data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

if TYPE_CHECKING:
    from dens_ocp.tools.data.convert import Written

_RECIPE = Path(__file__).with_name("config.yml").read_text()


def recipe_cutoff() -> float:
    """``model.max_radius`` of the recipe, Angstrom."""
    return float(yaml.safe_load(_RECIPE)["model"]["max_radius"])


def sections_text(written: Written) -> str:
    """The sections ``dataset`` and ``evaluation`` of a config, as YAML."""
    from dens_ocp.settings.defaults import KEY_MAPPING

    folders = {split: str(written.root / split) for split in written.counts}
    train = {
        "format": "dens_lmdb",
        "src": folders["train"],
        "key_mapping": dict(KEY_MAPPING),
        "transforms": {"normalizer": written.training.normalizer},
    }
    sections: dict[str, object] = {"dataset": {"train": train}}
    if "val" in folders:
        sections["dataset"] = {"train": train, "val": {"src": folders["val"]}}
    scored = next((split for split in ("test", "val") if split in folders), None)
    if scored is not None:
        sections["evaluation"] = {"s2ef": {scored: folders[scored]}}
    return yaml.safe_dump(sections, sort_keys=False)


def config_text(written: Written, cutoff: float) -> str:
    """YAML of a run: the recipe in ``config.yml`` with the model's cutoff (Angstrom) and number of
    elements (OC20's 90, or more), paths, normalizer and evaluation."""
    recipe = _RECIPE
    elements = max(90, written.largest_atomic_number + 1)
    for name, value in (("max_radius", cutoff), ("max_num_elements", elements)):
        recipe, number = re.subn(rf"(?m)^(  {name}: )[\d.]+", rf"\g<1>{value}", recipe)
        assert number == 1, name
    return f"{recipe}\n{sections_text(written)}"
