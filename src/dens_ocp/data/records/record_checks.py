"""Is a record what a run needs? Answered where it is read, with the record's name."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch_geometric.data import Data

from dens_ocp.data.records.record_ids import Place, name_of
from dens_ocp.errors import DensError


@dataclass(frozen=True)
class RecordRules:
    """What the records of a data set have to be.

    Attributes:
        where: the config section, for messages: ``dataset.train``.
        required: level of each label that must be there, ``{"energy": "system", "forces":
            "atom"}``; names are those after ``key_mapping``.
        parts: labels that are parts of a tensor -> the tensor (``outputs.stress.decomposition``).
        per_atom: what each record has to have for each of its atoms.
        needs_cell: the model builds periodic graphs, so records need a cell with a volume.
        max_num_elements: of the model: atomic numbers are smaller. None: any.
        needs_sid: results are named by ``sid``.
        form: ``format`` of the data set.
    """

    where: str
    required: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, str] = field(default_factory=dict)
    per_atom: tuple[str, ...] = ("fixed",)
    needs_cell: bool = False
    max_num_elements: int | None = None
    needs_sid: bool = False
    form: str = "lmdb"


def check_record(record: Data, rules: RecordRules, place: Place | None = None) -> None:
    """Make sure that a record can be in a batch of the model, and be trained on.

    Args:
        record: after :func:`dens_ocp.data.records.record_forms.put_right`.
        rules: of its data set.
        place: where it lies.

    Raises:
        DensError: the message names the record (sid, fid, place), the attribute, what it is and
            what it should be. Something is missing; is no tensor, or of another shape or type;
            holds NaN or infinite values; an atomic number that the model has no embedding for.
    """

    def refuse(problem: str) -> DensError:
        return DensError(f"{name_of(record, rules.where, place)}{problem}")

    fields = record.to_dict()  # asking a record for what it lacks is slow
    natoms = _check_structure(fields, refuse)
    for name in rules.per_atom:
        if fields.get(name) is None:
            raise refuse(
                f" has no attribute {name!r} ({_PER_ATOM[name]}); write the LMDB with it, for "
                f"example record.{name} = torch.zeros(natoms)"
            )
    for name in ("atomic_numbers", "fixed", "tags"):
        _check_one_per_atom(fields.get(name), name, natoms, refuse)
    _check_elements(fields["atomic_numbers"], rules.max_num_elements, refuse)
    _check_cell(fields, rules.needs_cell, refuse)
    for label, level in rules.required.items():
        value = fields.get(label)
        if value is None:
            raise DensError(_missing_label(record, label, rules, place))
        _check_label(value, label, level, natoms, refuse)
    if rules.needs_sid and fields.get("sid") is None:
        raise refuse(
            " has no sid, which names its results, but the first record has one; give every "
            "record one, for example record.sid = 17"
        )


def described(value: Any) -> str:
    """What a value is, in a few words: ``a float64 tensor of shape (9, 3)``.

    >>> described(torch.zeros(2, 3))
    'a float32 tensor of shape (2, 3)'
    >>> described("x")
    "str 'x'"
    """
    if isinstance(value, torch.Tensor):
        return f"a {str(value.dtype)[6:]} tensor of shape {tuple(value.shape)}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a NumPy array of type {value.dtype} and shape {tuple(value.shape)}"
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"


Refusal = Callable[[str], DensError]


def _check_structure(fields: Mapping[str, Any], refuse: Refusal) -> int:
    """Positions and their number; returns it."""
    positions = fields.get("pos")
    if positions is None:
        raise refuse(" has no positions pos of shape (atoms, 3); write the record with positions")
    if not _is_floating(positions) or positions.dim() != 2 or positions.shape[1] != 3:
        raise refuse(
            f" has no positions pos of shape (atoms, 3): pos is {described(positions)}; write a "
            "float32 tensor, Angstrom"
        )
    natoms = positions.shape[0]
    if natoms == 0:
        raise refuse(" has no atoms; leave it out")
    _check_finite(positions, "pos", refuse)
    said = fields.get("natoms", natoms)
    if said != natoms:
        raise refuse(
            f": natoms is {said if isinstance(said, int) else described(said)}, expected {natoms}, "
            f"the number of rows of pos; correct it, or leave it out"
        )
    return natoms


_PER_ATOM = {
    "fixed": "1 for fixed atoms, 0 for free atoms; zeros if all are free",
    "tags": "0 for the bulk, 1 for the surface, 2 for the adsorbate",
}


def _check_one_per_atom(value: Any, name: str, natoms: int, refuse: Refusal) -> None:
    if value is None:
        if name == "atomic_numbers":
            raise refuse(" has no atomic_numbers; write the record with one number for each atom")
        return
    if not isinstance(value, torch.Tensor) or value.dtype != torch.int64:
        raise refuse(f": {name} is {described(value)}, expected {natoms} whole numbers; correct it")
    if tuple(value.shape) != (natoms,):
        raise refuse(
            f": {name} has shape {tuple(value.shape)}, expected ({natoms},) for its {natoms} "
            "atoms; correct it"
        )


def _check_elements(atomic_numbers: torch.Tensor, limit: int | None, refuse: Refusal) -> None:
    smallest, largest = (int(each) for each in torch.aminmax(atomic_numbers))
    if smallest < 0:
        raise refuse(f": an atomic number is {smallest}, expected 1 or more; correct it")
    if limit is not None and largest >= limit:
        raise refuse(
            f" has an atom with atomic number {largest}, but the model has embeddings for 0 to "
            f"{limit - 1} (model.max_num_elements: {limit}); give "
            f"--model.max_num_elements={largest + 1} or more (a trained checkpoint cannot be "
            "changed), or leave the record out"
        )


def _check_cell(fields: Mapping[str, Any], needed: bool, refuse: Refusal) -> None:
    cell = fields.get("cell")
    if cell is None:
        if needed:
            raise refuse(
                " has no cell, but the model builds periodic graphs (use_pbc); give molecules an "
                "empty box: dens-ocp data from-npz|from-xyz ... --box 50"
            )
        return
    if not needed and not _is_floating(cell):
        return
    if not _is_floating(cell) or (needed and tuple(cell.shape) != (1, 3, 3)):
        raise refuse(
            f": cell is {described(cell)}, expected a float32 tensor of shape (1, 3, 3) with the "
            "three vectors as rows, Angstrom; correct it"
        )
    _check_finite(cell, "cell", refuse)
    if not needed:
        return
    pbc = fields.get("pbc")
    if pbc is not None and (not torch.is_tensor(pbc) or pbc.shape != (1, 3)):
        raise refuse(
            f": pbc is {described(pbc)}, expected three values, each True or False; correct it"
        )
    if pbc is not None and not pbc.any():
        return
    if abs(torch.linalg.det(cell[0].double()).item()) < 1e-6:
        raise refuse(
            f": its cell has no volume ({cell[0].tolist()}), but the model builds periodic "
            "graphs (use_pbc); give three vectors, with vacuum in directions that are not "
            "periodic"
        )


def _check_label(value: Any, label: str, level: str, natoms: int, refuse: Refusal) -> None:
    if isinstance(value, numbers.Real):
        if level == "atom":
            raise refuse(
                f": {label} is one number, expected one row for each of its {natoms} atoms"
            )
        if not math.isfinite(value):
            raise refuse(
                f": {label} holds NaN or infinite values (1 of 1); repair the record or leave it "
                "out"
            )
        return
    if not isinstance(value, torch.Tensor):
        raise refuse(f": {label} is {described(value)}, expected numbers; write a tensor or float")
    if label == "energy":
        raise refuse(f": energy is {described(value)}, expected one number (eV); correct it")
    expected = (natoms, 3) if label == "forces" else (natoms, *value.shape[1:])
    if level == "atom" and tuple(value.shape) != expected:
        raise refuse(
            f": {label} has shape {tuple(value.shape)}, expected {expected} for its {natoms} "
            "atoms; correct it"
        )
    _check_finite(value, label, refuse)


def _is_floating(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _check_finite(value: torch.Tensor, label: str, refuse: Refusal) -> None:
    # the sum is NaN or infinite if one number is; it may also overflow
    if not math.isfinite(float(value.sum())) and not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise refuse(
            f": {label} holds NaN or infinite values ({bad} of {value.numel()}); repair the record "
            "or leave it out"
        )


def _missing_label(record: Data, label: str, rules: RecordRules, place: Place | None) -> str:
    there = sorted(key for key in record.keys() if getattr(record, key, None) is not None)
    whole = rules.parts.get(label)
    if whole in there:
        parts = ", ".join(each for each, tensor in rules.parts.items() if tensor == whole)
        return (
            f"{name_of(record, rules.where, place)} has {whole!r} but not its part {label!r}; "
            f"decompose it with {rules.where}.transforms.decompose_tensor: {{tensor: {whole}, "
            f"rank: 2, decomposition: ...}} as in outputs.{whole}.decomposition ({parts})"
        )
    label = whole or label
    message = (
        f"{name_of(record, rules.where, place)} has no label {label!r} "
        f"(it has: {', '.join(there)}); "
    )
    if "ase_" in rules.form:
        wanted = ", ".join(f"r_{name}: True" for name in ("energy", "forces", "stress")
                           if name in (*rules.required, label))  # fmt: skip
        return (
            f"{message}fairchem reads labels from ASE files only if you request them: "
            f"{rules.where}.a2g_args: {{{wanted or f'r_{label}: True'}}}"
        )
    if label == "energy" and "energy_relaxed" in there:
        return f"{message}map its name with {rules.where}.key_mapping: {{y_relaxed: energy}}"
    message += f"name it with {rules.where}.key_mapping: {{NAME: {label}}}"
    if label == "forces":
        message += "; without forces in the data, training with forces or DeNS is not possible"
    return message
