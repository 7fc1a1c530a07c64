"""The one form in which records reach a batch; what differs without doubt is put right.

Own data hold the same numbers in many forms: float64 positions, a cell of shape (3, 3), NumPy
arrays, energies as numbers or tensors of one number. PyG joins the records of a batch by the form
of the first one, so other forms end far from the record that has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data

KEY_MAPPING = {"y": "energy", "force": "forces", "y_relaxed": "energy_relaxed"}
"""Names of labels in OC20/OC22 LMDBs and in fairchem."""


def rename_labels(record: Data, mapping: Mapping[str, str] = KEY_MAPPING) -> dict[str, str]:
    """Give labels fairchem's names, in place. A label that is there under its new name stays as it
    is: where a record has ``y`` and ``energy``, ``energy`` is the energy, as fairchem reads it.

    Returns:
        The names that were changed.
    """
    fields = record.to_dict()  # asking a record for what it lacks is slow
    renamed = {
        old: new
        for old, new in mapping.items()
        if fields.get(old) is not None and fields.get(new) is None
    }
    for old, new in renamed.items():
        record[new] = record[old]
        del record[old]
    return renamed


def put_right(record: Data) -> None:
    """Bring what is in a record into the form of OC20's, in place.

    ========================  ==================================================================
    ``pos``, forces           (N, 3) float32 tensor, from any float or integer type, or NumPy
    ``atomic_numbers``,       (N,) int64 tensor, from whole numbers of any type, (N, 1), NumPy
    ``tags``, ``fixed``
    ``cell``                  (1, 3, 3) float32 tensor, from (3, 3), any float type, NumPy
    ``pbc``                   (1, 3) bool tensor, from (3,), 0 and 1, one value for all directions
    ``natoms``                int; if it is missing, the number of rows of ``pos``
    energies                  a number, from a tensor or array with one number. float64 stays
                              float64, in the batch too
    ``sid``, ``fid``          a number, from a tensor or array with one number
    ========================  ==================================================================

    What cannot be brought into its form stays as it is; see
    :func:`dens_ocp.data.records.record_checks.check_record`.
    """
    fields = record.to_dict()
    for name, form in _FORMS.items():
        value = fields.get(name)
        if value is None:
            continue
        right = form(value)
        if right is not None and right is not value:
            record[name] = right
    natoms, pos = fields.get("natoms"), fields.get("pos")
    if natoms is None:
        if isinstance(pos, torch.Tensor) and pos.dim() == 2:
            record.natoms = pos.shape[0]
    elif type(natoms) is not int:
        one = _one(natoms)
        if isinstance(one, (int, float)) and int(one) == one:
            record.natoms = int(one)


def _tensor(value: Any) -> torch.Tensor | None:
    """A tensor of numbers, or None."""
    if isinstance(value, torch.Tensor):
        if value.is_complex():
            return None
        return value.detach() if value.requires_grad else value
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            return None
        # a copy: the arrays of a pickle can be read-only, or have another order of bytes
        return torch.tensor(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError):
        return None


def _floats(value: Any) -> torch.Tensor | None:
    tensor = _tensor(value)
    return None if tensor is None else tensor.float()


def _integers(value: Any) -> torch.Tensor | None:
    tensor = _tensor(value)
    if tensor is None:
        return None
    whole = tensor.long()
    if tensor.is_floating_point() and not torch.equal(whole.to(tensor.dtype), tensor):
        return None
    return whole.reshape(-1) if whole.dim() == 0 or whole.shape[1:] == (1,) else whole


def _cell(value: Any) -> torch.Tensor | None:
    tensor = _floats(value)
    return tensor[None] if tensor is not None and tensor.shape == (3, 3) else tensor


def _pbc(value: Any) -> torch.Tensor | None:
    tensor = _tensor(value)
    if tensor is None or tensor.shape not in ((), (1,), (3,), (1, 3)):
        return None
    flags = tensor != 0
    if tensor.dtype != torch.bool and not torch.equal(flags.to(tensor.dtype), tensor):
        return None
    return flags.expand(3)[None] if flags.numel() == 1 else flags.reshape(1, 3)


def _number(value: Any) -> float | None:
    if isinstance(value, (list, tuple)):
        one = value[0] if len(value) == 1 else None
        return float(one) if isinstance(one, (int, float)) else None
    wide = getattr(value, "dtype", None) in (torch.float64, np.dtype(np.float64))
    one = _one(value)
    if not isinstance(one, (int, float)):
        return None
    return np.float64(one) if wide else float(one)


def _one(value: Any) -> Any:
    """The Python value in a tensor or array with one, or None."""
    size = value.numel() if isinstance(value, torch.Tensor) else getattr(value, "size", None)
    return value.item() if size == 1 else None


_FORMS = {
    **dict.fromkeys(("pos", "forces", "force", "pos_relaxed"), _floats),
    **dict.fromkeys(("atomic_numbers", "tags", "fixed"), _integers),
    "cell": _cell,
    "pbc": _pbc,
    **dict.fromkeys(("energy", "y", "y_init", "y_relaxed", "energy_relaxed"), _number),
    **dict.fromkeys(("sid", "fid"), _one),
}
"""What brings each attribute into its form, or returns None where it cannot."""
