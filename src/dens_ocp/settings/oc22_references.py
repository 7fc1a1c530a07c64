"""OC22's linear references: fairchem's ``oc22_lmdb`` reads ``lin_ref`` and then ignores it."""

from __future__ import annotations

import logging
from typing import Any


def with_linear_references(section: dict[str, Any]) -> dict[str, Any]:
    """The settings of a training set whose ``lin_ref`` is honoured.

    ``lin_ref: FILE`` of an ``oc22_lmdb`` becomes fairchem's ``transforms.element_references``: the
    references are subtracted in the loss and added again to predictions, which are total
    energies. Settings that already have element references are left alone.
    """
    transforms = section.get("transforms") or {}
    file = section.get("lin_ref")
    if section.get("format") != "oc22_lmdb" or not file or "element_references" in transforms:
        return section
    logging.warning(
        "dataset.train.lin_ref: %s has no effect in fairchem's oc22_lmdb; it is used as "
        "dataset.train.transforms.element_references.energy.file",
        file,
    )
    references = {"energy": {"file": file}}
    return {**section, "transforms": {**transforms, "element_references": references}}
