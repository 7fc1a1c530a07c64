"""The config of an exported checkpoint, and the YAML file for stock fairchem's command line."""

from __future__ import annotations

import copy
from typing import Any

from dens_ocp.dens.config import OFFICIAL_KEYS
from dens_ocp.settings import defaults

TRAINER = "equiformerv2_forces"
"""The stock trainer that reads schedules as ours does, in epochs; it trains eSCN as well."""

_OUTPUTS = {
    "energy": {"level": "system"},
    "forces": {"level": "atom", "train_on_free_atoms": True, "eval_on_free_atoms": True},
}
_LOSS_FUNCTIONS = [
    {"energy": {"fn": "mae", "coefficient": 2}},
    {"forces": {"fn": "l2mae", "coefficient": 100}},
]
_OPTIM = {
    # fairchem builds optimizer and schedule before it predicts, and fails without these
    "batch_size": 4,
    "eval_batch_size": 4,
    "num_workers": 0,
    "lr_initial": 0.0002,
    "max_epochs": 1,
    "scheduler": "LambdaLR",
    "scheduler_params": {
        "lambda_type": "cosine",
        "warmup_factor": 0.2,
        "warmup_epochs": 0.1,
        "lr_min_factor": 0.01,
    },
}


def stock_config(config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """What stock fairchem needs of a config to predict, relax and train.

    Args:
        config: of the checkpoint, or of a YAML file; absent sections get defaults.
        model: the stock model's section.

    Returns:
        A config as in a YAML file (``dataset.train`` names format and labels, no path). No option
        of DeNS is left. Normalizers and references are not in it: they come with the checkpoint.
    """
    given = config.get("optim") or {}
    ours = {"dens", *OFFICIAL_KEYS}
    outputs = config.get("outputs") or _OUTPUTS
    metrics = defaults.evaluation_metrics(config.get("evaluation_metrics"), outputs)
    section = training_section(config.get("dataset"))
    form = section.get("format") or "lmdb"
    labels = {
        "format": "lmdb" if form == "dens_lmdb" else form,
        "key_mapping": section.get("key_mapping") or dict(defaults.KEY_MAPPING),
    }
    made = {
        "trainer": TRAINER,
        "model": model,
        "dataset": {"train": labels},
        "outputs": outputs,
        "loss_functions": config.get("loss_functions") or _LOSS_FUNCTIONS,
        "evaluation_metrics": metrics,
        "task": config.get("task") or {},
        "optim": {**_OPTIM, **{name: given[name] for name in given if name not in ours}},
        "logger": config.get("logger") or "tensorboard",
    }
    return copy.deepcopy(made)


def training_section(dataset: dict[str, Any] | list[Any] | None) -> dict[str, Any]:
    """The settings of the training set.

    Args:
        dataset: the ``dataset`` section of a YAML file (by split, or an old one's list), or of a
            checkpoint, which is the training set's itself.
    """
    dataset = dataset or {}
    if isinstance(dataset, list):
        return dataset[0] if dataset else {}
    return (dataset.get("train") or {}) if "train" in dataset else dataset


def checkpoint_config(config: dict[str, Any]) -> dict[str, Any]:
    """The same as fairchem keeps it in a checkpoint: ``dataset`` is the training set's section.

    ``OCPCalculator`` deletes ``dataset.src`` and fails when it is not there.
    """
    return {**config, "dataset": {"src": "", **config["dataset"]["train"]}, "amp": False}
