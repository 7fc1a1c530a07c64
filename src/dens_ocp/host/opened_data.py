"""A data set as fairchem opens it, with the section named when it cannot."""

from __future__ import annotations

from typing import Any

from fairchem.core.datasets.base_dataset import create_dataset

from dens_ocp.datasets.record_checks import RecordRules
from dens_ocp.errors import DensError


def open_data_set(config: dict[str, Any], split: str) -> Any:
    """fairchem's ``create_dataset``.

    Raises:
        DensError: it failed; fairchem and ASE raise what they come across.
    """
    try:
        return create_dataset(config, split)
    except DensError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or "no message"
        raise DensError(
            f"dataset.{split} (format {config.get('format', 'lmdb')}, src {config.get('src')}) "
            f"cannot be opened: {type(error).__name__}: {reason}; look at its options and files"
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
    body = getattr(model, "backbone", model)
    return RecordRules(
        f"dataset.{split}",
        required=labels,
        per_atom=("fixed", "tags") if split == "relax" else ("fixed",),
        needs_cell=is_periodic(model),
        max_num_elements=getattr(body, "max_num_elements", None),
        needs_sid=split in ("test", "relax"),
        form=form or "lmdb",
    )


def is_periodic(model: Any) -> bool:
    """Whether a model builds graphs across the boundaries of cells."""
    return bool(getattr(getattr(model, "backbone", model), "use_pbc", False))
