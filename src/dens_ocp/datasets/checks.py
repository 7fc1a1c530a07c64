"""Checks of data before and while they are read: files, labels."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lmdb
import torch
from torch_geometric.data import Batch, Data

from dens_ocp.datasets.lmdb_file import read_header
from dens_ocp.datasets.md_flags import OPTIONS as MD_OPTIONS
from dens_ocp.datasets.record_pickles import loads_number
from dens_ocp.errors import DensError

LMDB_FORMATS = ("lmdb", "single_point_lmdb", "trajectory_lmdb", "oc22_lmdb", "dens_lmdb")
"""Names of data sets (``format``) whose files :func:`check_dataset_paths` looks into."""

_SIDE_FILES = ("metadata_path", "lin_ref", "oc20_ref")

# ---- files -------------------------------------------------------------------------------------


def check_dataset_paths(section: Mapping[str, Any], name: str) -> None:
    """Make sure that fairchem can open the data set of one config section.

    Args:
        section: the section as fairchem sees it, settings inherited from the training set and
            ``splits`` / ``<split>_split_settings`` included; ``format`` defaults to ``lmdb``.
            Formats other than :data:`LMDB_FORMATS` are left to fairchem.
        name: for messages, ``dataset.train`` for example; its last part is the split.

    Raises:
        DensError: a path that is missing, a folder without ``*.lmdb``, no LMDB, an empty one, one
            cut short; MD options with a format that ignores them.
    """
    split = name.rpartition(".")[2]
    section = dict(section)
    if f"{split}_split_settings" in section:
        section.update(section[f"{split}_split_settings"] or {})
    elif split in (section.get("splits") or {}):
        section.update(section["splits"][split] or {})
    form = section.get("format", "lmdb")
    if form not in LMDB_FORMATS:
        return
    if form != "dens_lmdb" and split == "train":
        for option in MD_OPTIONS:
            if option in section:
                raise DensError(
                    f"{name}.{option}: {name}.format: {form} knows no MD flags; "
                    f"set {name}.format: dens_lmdb"
                )
    check_lmdb_source(section.get("src"), f"{name}.src")
    for option in _SIDE_FILES:
        value = section.get(option)
        if isinstance(value, (str, os.PathLike)) and not Path(value).is_file():
            raise DensError(f"{name}.{option}: there is no file {value}; correct the path")


def check_lmdb_source(src: Any, option: str) -> list[Path]:
    """The LMDB files of ``src`` (folder or file) in fairchem's order, each of them whole.

    Reads two file headers and the entry ``length`` of each; an LMDB without records is a mistake
    unless others of the folder have some.

    Args:
        src: value of the option.
        option: name of the option, for messages.

    Raises:
        DensError: see :func:`check_dataset_paths`.
    """
    if isinstance(src, (list, tuple)) and len(src) == 1:
        src = src[0]
    if not isinstance(src, (str, os.PathLike)) or not str(src):
        raise DensError(f"{option}: {src!r} is not the path of a folder with *.lmdb or of one file")
    path = Path(src)
    if not path.exists():
        parent = next(folder for folder in path.absolute().parents if folder.exists())
        raise DensError(
            f"{option}: {path} does not exist (the first folder of it that does: {parent}); "
            "correct the path"
        )
    paths = [path] if path.is_file() else sorted(path.glob("*.lmdb"))
    if not paths:
        try:
            others = sorted(os.listdir(path))
        except OSError as error:
            raise DensError(f"{option}: {path} cannot be read: {error.strerror}") from None
        holds = ", ".join([*others[:3], "..."] if others[3:] else others) or "nothing"
        raise DensError(
            f"{option}: the folder {path} has no *.lmdb file (it holds {holds}); name the folder "
            "that holds them, or one .lmdb file"
        )
    if sum(_count_records(each, option) for each in paths) == 0:
        raise DensError(
            f"{option}: {path} has no record: its {len(paths)} LMDB file(s), {paths[0].name} "
            "first, are empty (0 entries); write them again"
        )
    return paths


def _count_records(path: Path, option: str) -> int:
    """Number of records that fairchem sees in the file.

    Raises:
        DensError: damaged file; fewer records than ``length`` says.
    """
    entries = read_header(path, option).entries
    try:
        # as fairchem opens it; safe now: all pages are there
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env:
            length = env.begin().get(b"length")
    except lmdb.Error as error:
        raise DensError(f"{option}: {path} cannot be opened as an LMDB: {error}") from None
    if length is None:
        return entries
    records = entries - 1
    try:
        claimed = loads_number(length)
    except pickle.UnpicklingError:
        raise DensError(
            f"{option}: the entry 'length' of {path} is no pickled number; write it again"
        ) from None
    if claimed > records:
        raise DensError(
            f"{option}: {path} has {records} records, but its entry 'length' says {claimed}: it is "
            "incomplete; write it again"
        )
    return min(claimed, records)


# ---- labels ------------------------------------------------------------------------------------


class LabelCheckingCollater:
    """A collater that looks at the labels of each record first. Can be pickled.

    Args:
        collater: list of records -> batch, fairchem's for example.
        required: level of each label that must be there, ``{"energy": "system", "forces":
            "atom"}``; names are those after ``key_mapping``.
        where: the config section, for messages: ``dataset.train``.

    Calling it raises:
        DensError: a record without a label, without ``fixed``, without atoms, with NaN or infinite
            labels, positions or cell, or with atom-wise labels of another shape; the message names
            the record.
    """

    def __init__(
        self, collater: Callable[[list[Data]], Batch], required: Mapping[str, str], where: str
    ) -> None:
        self.collater = collater
        self.required = dict(required)
        self.where = where

    def __call__(self, records: list[Data]) -> Batch:
        for record in records:
            check_record(record, self.required, self.where)
        return self.collater(records)


def check_first_record(
    dataset: Any,
    required: Mapping[str, str],
    where: str,
    atoms: Sequence[str] = ("fixed",),
    cell: bool = False,
) -> None:
    """Check the first record of a data set, before it is used.

    Args:
        dataset: fairchem's data set or subset.
        required: as in :class:`LabelCheckingCollater`.
        where: as there.
        atoms: what each record has to have for each of its atoms.
        cell: the model builds periodic graphs, so records need a cell.

    Raises:
        DensError: as there; an empty data set; a first record that cannot be read.
    """
    if len(dataset) == 0:
        raise DensError(
            f"{where} has no record left; look at first_n, sample_n, max_atoms, subset_to and shard"
        )
    try:
        record = dataset[0]
    except (TypeError, EOFError, pickle.UnpicklingError) as error:
        raise DensError(
            f"{where}: the first record cannot be read ({type(error).__name__}: {error}): the LMDB "
            "is damaged; copy it or write it again"
        ) from error
    check_record(record, required, where, atoms)
    if cell and getattr(record, "cell", None) is None:
        raise DensError(
            f"{_name(record, where)} has no cell, and the model builds periodic graphs (use_pbc); "
            "give molecules an empty box: dens-ocp data from-npz|from-xyz ... --box 50"
        )


def check_record(
    record: Data, required: Mapping[str, str], where: str, atoms: Sequence[str] = ("fixed",)
) -> None:
    """Check one record; see :class:`LabelCheckingCollater` and :func:`check_first_record`."""
    positions = getattr(record, "pos", None)
    if positions is None or positions.dim() != 2 or positions.shape[1] != 3:
        raise DensError(f"{_name(record, where)} has no positions pos of shape (atoms, 3)")
    num_atoms = positions.shape[0]
    if num_atoms == 0:
        raise DensError(f"{_name(record, where)} has no atoms; leave it out")
    _check_finite(positions, "pos", record, where)
    cell = getattr(record, "cell", None)
    if cell is not None:
        _check_finite(cell, "cell", record, where)
    for name in atoms:
        _check_one_per_atom(getattr(record, name, None), name, num_atoms, record, where)
    for label, level in required.items():
        value = getattr(record, label, None)
        if value is None:
            raise DensError(_missing_label(record, label, where))
        value = torch.as_tensor(value)
        expected = (num_atoms, 3) if label == "forces" else (num_atoms, *value.shape[1:])
        if level == "atom" and tuple(value.shape) != expected:
            raise DensError(
                f"{_name(record, where)}: {label} has shape {tuple(value.shape)}, expected "
                f"{expected} for its {num_atoms} atoms"
            )
        _check_finite(value, label, record, where)


_PER_ATOM = {
    "fixed": "1 for atoms that do not move, 0 for free ones; zeros if all are free",
    "tags": "0 for the bulk, 1 for the surface, 2 for the adsorbate",
}


def _check_one_per_atom(value: Any, name: str, num_atoms: int, record: Data, where: str) -> None:
    if value is None:
        raise DensError(
            f"{_name(record, where)} has no attribute {name!r} ({_PER_ATOM[name]}); write the "
            f"LMDB with it: record.{name} = torch.zeros(natoms) for example"
        )
    if tuple(torch.as_tensor(value).shape) != (num_atoms,):
        raise DensError(
            f"{_name(record, where)}: {name} has shape {tuple(torch.as_tensor(value).shape)}, "
            f"expected ({num_atoms},) for its {num_atoms} atoms"
        )


def _check_finite(value: torch.Tensor, label: str, record: Data, where: str) -> None:
    if not torch.isfinite(value).all():
        bad = int((~torch.isfinite(value)).sum())
        raise DensError(
            f"{_name(record, where)}: {label} holds NaN or infinite values ({bad} of "
            f"{value.numel()}); repair the record or leave it out"
        )


def _name(record: Data, where: str) -> str:
    marks = {mark: getattr(record, mark, None) for mark in ("sid", "fid", "id")}
    shown = ", ".join(
        f"{mark} {value.item() if torch.is_tensor(value) and value.numel() == 1 else value}"
        for mark, value in marks.items()
        if value is not None
    )
    return f"{where}: the record {shown}" if shown else f"{where}: a record without sid"


def _missing_label(record: Data, label: str, where: str) -> str:
    there = sorted(key for key in record.keys() if getattr(record, key, None) is not None)
    message = f"{_name(record, where)} has no label {label!r} (it has: {', '.join(there)}); "
    known = {"energy": ("y", "y_relaxed"), "forces": ("force",)}
    if any(old in there for old in known.get(label, ())):
        old = next(old for old in known[label] if old in there)
        usual = {"y_relaxed": "{y_relaxed: energy}"}.get(old, "{y: energy, force: forces}")
        return f"{message}map its name: {where}.key_mapping: {usual}"
    message += f"name it with {where}.key_mapping: {{y: energy, force: forces}}"
    if label == "forces":
        message += "; data without forces cannot be trained on with forces or DeNS"
    return message
