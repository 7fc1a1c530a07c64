"""Checks of data sets before they are opened: paths and files."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dens_ocp.data.lmdb_file import AS_ASE, count_records
from dens_ocp.data.md_flags import OPTIONS as MD_OPTIONS
from dens_ocp.errors import DensError

LMDB_FORMATS = ("lmdb", "single_point_lmdb", "trajectory_lmdb", "oc22_lmdb", "dens_lmdb")
"""Names of data sets (``format``) whose files :func:`check_dataset_paths` looks into."""

ASE_FORMATS = ("ase_db", "dens_ase_db", "ase_read", "ase_read_multi")
"""Names of fairchem's data sets of ASE's files."""

_SIDE_FILES = ("metadata_path", "lin_ref", "oc20_ref")


def check_dataset_paths(section: Mapping[str, Any], name: str) -> None:
    """Make sure that fairchem can open the data set of one config section.

    Args:
        section: the section as fairchem sees it, settings inherited from the training set and
            ``splits`` / ``<split>_split_settings`` included; ``format`` defaults to ``lmdb``.
            Of formats other than :data:`LMDB_FORMATS`, ASE's are looked for, others left to
            fairchem.
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
    if form in ASE_FORMATS:
        _check_ase_source(section, form, f"{name}.src")
    if form not in LMDB_FORMATS:
        return
    if form != "dens_lmdb" and split == "train":
        for option in MD_OPTIONS:
            if option in section:
                raise DensError(
                    f"{name}.{option}: {name}.format: {form} has no MD flags; set {name}.format: "
                    "dens_lmdb"
                )
    check_lmdb_source(section.get("src"), f"{name}.src")
    for option in _SIDE_FILES:
        value = section.get(option)
        if isinstance(value, (str, os.PathLike)) and not Path(value).is_file():
            raise DensError(f"{name}.{option}: the file {value} does not exist; correct the path")


def _check_ase_source(section: Mapping[str, Any], form: str, option: str) -> None:
    """The files of a data set of ASE's are there, as fairchem looks for them.

    Raises:
        DensError: no such file or folder; none in it; a file where a folder is needed.
    """
    src = section.get("src")
    if form == "ase_read_multi" and section.get("index_file"):
        return
    sources = src if isinstance(src, (list, tuple)) else [src]
    for each in sources:
        if not isinstance(each, (str, os.PathLike)) or not str(each):
            raise DensError(f"{option}: {each!r} is not the path of files that ASE reads")
        path = Path(each)
        if "://" in str(each):  # a database server
            continue
        if not form.endswith("ase_db") and path.is_file():
            raise DensError(
                f"{option}: {path} is a file, but format: {form} reads the files of a folder "
                "that match the option pattern of the data set; name the folder, and pattern: "
                + path.name
            )
        if path.is_dir():
            pattern = "*" if form.endswith("ase_db") else section.get("pattern", "*")
            if not any(path.glob(pattern)):
                raise DensError(
                    f"{option}: the folder {path} has no file that matches {pattern!r}; correct "
                    "the path"
                )
        elif not path.is_file() and not (len(sources) == 1 and glob.glob(str(each))):
            raise _not_there(path, option)


def _not_there(path: Path, option: str) -> DensError:
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    return DensError(
        f"{option}: {path} does not exist (the first parent folder that exists: {parent}); "
        "correct the path"
    )


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
        raise _not_there(path, option)
    paths = [path] if path.is_file() else sorted(path.glob("*.lmdb"))
    if not paths:
        try:
            others = sorted(os.listdir(path))
        except OSError as error:
            raise DensError(f"{option}: {path} cannot be read: {error.strerror}") from None
        holds = ", ".join([*others[:3], "..."] if others[3:] else others) or "nothing"
        if any(name.endswith((".aselmdb", ".db")) for name in others):
            raise DensError(
                f"{option}: the folder {path} has no *.lmdb file, but it has ASE databases "
                f"({holds}); {AS_ASE}"
            )
        raise DensError(
            f"{option}: the folder {path} has no *.lmdb file (it holds {holds}); name the folder "
            "that holds them, or one .lmdb file"
        )
    if sum(count_records(each, option) for each in paths) == 0:
        raise DensError(
            f"{option}: {path} has no record: its {len(paths)} LMDB file(s), the first of them "
            f"{paths[0].name}, are empty (0 entries); write them again"
        )
    return paths
