"""The config of a data set of crystals: a small EquiformerV2 with DeNS, with stress if there is."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from ase.data import chemical_symbols

_RECIPE = Path(__file__).parent.with_name("config.yml")
_OWN = Path(__file__).with_name("config.yml")
_HEADER = """\
# Training of a small EquiformerV2 with DeNS on a data set of `dens-ocp data materials`, for some
# thousand frames. The recipes for the whole of MPtrj are in configs/omat24/mptrj. Everything can be
# changed here or on the command line (--optim.max_epochs=100).
"""


def sections(root: Path, described: Mapping[str, Any]) -> dict[str, Any]:
    """The sections that depend on the data: data sets, losses, metrics, what stress needs, and the
    data set that `dens-ocp evaluate` scores: the test set, else that for validation.

    Args:
        root: folder of the data set.
        described: what its ``dataset.json`` says.
    """
    own = yaml.safe_load(_OWN.read_text())
    with_stress = own.pop("stress")
    has_stress = described["rms_stress_eV_per_Angstrom3"] is not None
    if has_stress:
        own = _merged(own, with_stress)
    labels = ("energy", "forces", "stress") if has_stress else ("energy", "forces")
    transforms = own.pop("dataset")["train"]["transforms"]
    datasets: dict[str, dict[str, Any]] = {
        split: {
            "format": "ase_db",
            "src": str(root / split),
            "a2g_args": {f"r_{name}": True for name in labels},
        }
        for split in described["materials"]
    }
    datasets["train"]["transforms"] = transforms
    split = next((name for name in ("test", "val") if name in datasets), None)
    evaluation = {"evaluation": {"s2ef": {split: deepcopy(datasets[split])}}} if split else {}
    datasets.pop("test", None)
    return {"dataset": datasets, **own, **evaluation}


def text(root: Path, described: Mapping[str, Any], cutoff: float) -> str:
    """YAML of a run.

    Args:
        root, described: as :func:`sections`.
        cutoff: of the model, Angstrom.
    """
    recipe = yaml.safe_load(_RECIPE.read_text())
    recipe.pop("loss_functions")
    config = _merged(recipe, sections(root, described))
    config["model"]["max_radius"] = cutoff
    config["model"]["max_num_elements"] = max(90, described["largest_atomic_number"] + 1)
    return _HEADER + yaml.safe_dump(config, sort_keys=False)


def needs(described: Mapping[str, Any]) -> str:
    """What a model for the data needs, in words."""
    largest = described["largest_atomic_number"]
    return f"max_num_elements of {largest + 1} or more ({chemical_symbols[largest]})"


def _merged(first: Any, second: Any) -> Any:
    """Lists one after the other, sections within each other; else the second."""
    if isinstance(first, dict) and isinstance(second, dict):
        both = {key: _merged(first[key], second[key]) for key in first.keys() & second.keys()}
        return {key: both.get(key, first.get(key, second.get(key))) for key in {**first, **second}}
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *(each for each in second if each not in first)]
    return second
