"""A config file for training and evaluation on a converted data set."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

import yaml

from dens_ocp.settings.defaults import KEY_MAPPING
from dens_ocp.tools.data.convert import Written


def training_sections(written: Written) -> dict[str, Any]:
    """The sections ``dataset`` and ``evaluation`` of a config."""
    folders = {split: str(written.root / split) for split in written.counts}
    train = {
        "format": "dens_lmdb",
        "src": folders["train"],
        "key_mapping": dict(KEY_MAPPING),
        "transforms": {"normalizer": written.normalizer},
    }
    others = {split: {"src": folders[split]} for split in ("val",) if split in folders}
    scored = folders.get("test") or folders.get("val")
    sections: dict[str, Any] = {"dataset": {"train": train, **others}}
    if scored is not None:
        split = "test" if "test" in folders else "val"
        sections["evaluation"] = {"s2ef": {split: scored}}
    return sections


def recipe_cutoff() -> float:
    """``model.max_radius`` of the recipe, Angstrom."""
    return float(yaml.safe_load(_recipe())["model"]["max_radius"])


def max_num_elements(written: Written) -> int:
    """``model.max_num_elements`` for all elements of the data: OC20's 90, or more."""
    return max(90, written.largest_atomic_number + 1)


def config_text(written: Written) -> str:
    """YAML of a run: the recipe in ``config.yml`` with the model's cutoff and number of elements,
    paths, normalizer and evaluation."""
    recipe = _recipe()
    for name, value in (
        ("max_radius", written.cutoff),
        ("max_num_elements", max_num_elements(written)),
    ):
        recipe, number = re.subn(rf"(?m)^(  {name}: )[\d.]+", rf"\g<1>{value}", recipe)
        assert number == 1, name
    sections = yaml.safe_dump(training_sections(written), sort_keys=False)
    return f"{recipe}\n{sections}"


def _recipe() -> str:
    return resources.files(__package__).joinpath("config.yml").read_text()


def sections_text(written: Written) -> str:
    """What a config of one's own needs, as YAML."""
    return yaml.safe_dump(training_sections(written), sort_keys=False)
