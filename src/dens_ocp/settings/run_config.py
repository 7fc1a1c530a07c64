"""A training config as fairchem's trainer sees it, read without starting a trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fairchem.core.common.utils import update_config

from dens_ocp.data.md_flags import without_inherited_md
from dens_ocp.errors import DensError
from dens_ocp.settings import config_file, configured_references, oc22_references, run
from dens_ocp.settings import overrides as given

SPLITS = ("train", "val", "test", "relax")


def read(path: str | Path, overrides: list[str]) -> dict[str, Any]:
    """The config file with its includes and ``--section.option=value`` overrides.

    Older spellings are translated as fairchem's trainer does (``base_trainer.py``,
    ``update_config``).

    Raises:
        DensError: as :func:`dens_ocp.settings.config_file.read`; sections that are missing; what
            :func:`dens_ocp.settings.run.checked` refuses.
    """
    kept = configured_references.keeping_settings(overrides)
    config = given.applied(config_file.read(path), kept)
    for name in ("model", "dataset", "optim"):
        if not isinstance(config.get(name), (dict, list)):
            raise DensError(f"{path} has no section {name}; start from a file in configs/")
    if config["model"].get("name") is None:
        raise DensError(f"{path}: model.name is missing; give for example equiformer_v2_dens")
    config = run.checked(config)
    sets = _data_sets(config["dataset"])
    config["dataset"], config["val_dataset"] = sets["train"], sets["val"]
    config.setdefault("task", {})
    try:
        config = update_config(config)
    except (KeyError, NotImplementedError):
        raise DensError(
            f"{path} has no loss_functions; write for example loss_functions: "
            "[{energy: {fn: mae, coefficient: 2}}, {forces: {fn: l2mae, coefficient: 100}}]"
        ) from None
    config["dataset"] = {**sets, "train": config["dataset"], "val": config["val_dataset"]}
    return config


def _data_sets(dataset: Any) -> dict[str, dict[str, Any]]:
    """Both forms of ``dataset``, a mapping or a list, as ``base_trainer.py`` reads them."""
    if isinstance(dataset, list):
        return {split: {} for split in SPLITS} | dict(zip(SPLITS, dataset, strict=False))
    if not any(split in dataset for split in SPLITS):
        return {split: {} for split in SPLITS} | {"train": dataset}
    return {split: dict(dataset.get(split) or {}) for split in SPLITS}


def data_sections(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Section of each data set that has a ``src``, inherited settings filled in.

    Args:
        config: what :func:`read` returned.
    """
    sets = config["dataset"]
    train = oc22_references.with_linear_references(sets["train"])
    sections = {}
    for split in SPLITS:
        section = train if split == "train" else sets[split]
        if not section.get("src"):
            continue
        inherits = split != "train" and section.get("use_train_settings", True)
        base = train if inherits else {}
        sections[split] = {**base, **without_inherited_md(section, base)}
    return sections
