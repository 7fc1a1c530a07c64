"""Configs of the demo's runs, made from the recipe in ``config.yml``."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from dens_ocp.settings.defaults import KEY_MAPPING

VALIDATIONS = 5  # during a training run


def recipe() -> dict[str, Any]:
    """``config.yml`` of this package."""
    return yaml.safe_load(resources.files(__package__).joinpath("config.yml").read_text())


def training(
    *,
    train: Path,
    val: Path,
    normalizers: dict[str, dict[str, float]],
    epochs: int,
    steps_per_epoch: int,
    dens: bool = True,
) -> dict[str, Any]:
    """The config of a training run.

    Args:
        train, val: S2EF LMDBs with ``y`` (eV) and ``force`` (eV/Angstrom).
        normalizers: mean and stdev of ``energy`` and ``forces``.
        epochs: number of epochs.
        steps_per_epoch: training steps of each; validations are spread evenly over the run.
        dens: False: the same training without DeNS.
    """
    config = recipe()
    config["dataset"] = {
        "train": {
            "format": "dens_lmdb",
            "src": str(train),
            "key_mapping": dict(KEY_MAPPING),
            "transforms": {"normalizer": normalizers},
        },
        "val": {"format": "lmdb", "src": str(val)},
    }
    config["optim"]["max_epochs"] = epochs
    config["optim"]["eval_every"] = max(1, -(-epochs * steps_per_epoch // VALIDATIONS))
    config["optim"]["dens"]["enabled"] = dens
    return config


def validation(training_config: dict[str, Any], source: Path) -> dict[str, Any]:
    """The training run's config with one data set, to validate on."""
    train = training_config["dataset"]["train"]
    section = {
        "format": "lmdb",
        "src": str(source),
        "key_mapping": train["key_mapping"],
        "transforms": train["transforms"],
    }
    return {**training_config, "dataset": {"val": section}}


def write(path: Path, config: dict[str, Any]) -> Path:
    """Write a config as YAML; returns ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
