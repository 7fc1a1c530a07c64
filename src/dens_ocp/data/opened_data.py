"""A data set as fairchem opens it, with the section named when it cannot."""

from __future__ import annotations

from typing import Any

import torch
from ase.data import chemical_symbols
from fairchem.core.common.registry import registry
from fairchem.core.datasets.base_dataset import create_dataset

from dens_ocp.data.dataset_reference import check_box
from dens_ocp.data.records.record_checks import RecordRules
from dens_ocp.errors import DensError


def open_data_set(config: dict[str, Any], split: str, whole: bool = False) -> Any:
    """fairchem's ``create_dataset``: the part of a data set that a config section asks for.

    Args:
        config: the section. split: its name.
        whole: the whole data set.

    Raises:
        DensError: it failed; fairchem and ASE raise what they come across.
    """
    try:
        if whole:
            return registry.get_dataset_class(config.get("format", "lmdb"))(config)
        return create_dataset(config, split)
    except DensError:
        raise
    except Exception as error:
        form = config.get("format", "lmdb")
        reason = " ".join(str(error).split()) or "no message"
        if isinstance(error, AssertionError) and "metadata" in reason.lower():
            raise DensError(
                f"dataset.{split}: metadata.npz next to {config.get('src')}: {reason} It was "
                "made for other records; make it again with python -m "
                "fairchem.core.scripts.make_lmdb_sizes --data-path PATH --num-workers 8, or "
                "remove it"
            ) from error
        raise DensError(
            f"dataset.{split} (format {form}, src {config.get('src')}) cannot be opened: "
            f"{type(error).__name__}: {reason}; check its options and files"
        ) from error


def rules_of(
    model: Any, split: str, labels: dict[str, str], form: str | None = None
) -> RecordRules:
    """What the records of a data set have to be for a model.

    Args:
        model: fairchem's, ours, or of another maker; of a hydra model the backbone is asked.
        split: train, val, test or relax.
        labels: level of each label of the loss, as in ``RecordRules``.
        form: ``format`` of the data set.
    """
    return RecordRules(
        f"dataset.{split}",
        required=labels,
        per_atom=("fixed", "tags") if split == "relax" else ("fixed",),
        needs_cell=is_periodic(model),
        max_num_elements=_number_of_elements(model),
        needs_sid=split in ("test", "relax"),
        form=form or "lmdb",
    )


def is_periodic(model: Any) -> bool:
    """Whether a model builds graphs across the boundaries of cells."""
    return bool(getattr(getattr(model, "backbone", model), "use_pbc", False))


def check_box_of(model: Any, src: object, split: str) -> None:
    """:func:`dens_ocp.data.dataset_reference.check_box` for a model."""
    seen = getattr(getattr(model, "backbone", model), "cutoff", None)
    if is_periodic(model) and isinstance(seen, (int, float)):
        check_box(src, float(seen), f"dataset.{split}.src")


def check_elements(model: Any, atomic_numbers: torch.Tensor) -> None:
    """The model has an embedding for each atom.

    Raises:
        DensError: it has not.
    """
    limit = _number_of_elements(model)
    if limit is None or not atomic_numbers.numel():
        return
    largest = int(atomic_numbers.max())
    if largest >= limit:
        raise DensError(
            f"an atom has atomic number {largest} ({chemical_symbols[largest]}), but the model "
            f"has embeddings for 0 to {limit - 1} (model.max_num_elements: {limit}); use a model "
            "that was trained with this element"
        )


def _number_of_elements(model: Any) -> int | None:
    return getattr(getattr(model, "backbone", model), "max_num_elements", None)
