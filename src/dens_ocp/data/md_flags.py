"""Which records of an LMDB data set are from molecular dynamics (the MD part of OC20 All+MD).

Options, beside ``src`` of a data set of ``format: dens_lmdb``::

    md_source: auto     # auto | data_log | files | records | none
    md_files: [md.*.lmdb, /data/oc20/md]

``data_log``
    The text files that OC20's preprocessing writes beside its LMDBs, read as the authors' code
    reads them: ``data_log*.txt`` in sorted order (``*.txt`` if there are none), one line for each
    record of the sorted LMDB files; a line with ``relaxations`` is not MD, else one with ``md`` is.
    For a single file ``data.0003.lmdb`` it is ``data_log.0003.txt`` beside it; if that does not
    exist and the file is the only LMDB of its folder, all logs of the folder.
``files``
    ``md_files`` names LMDB files, globs or folders of them whose records are all MD; relative
    paths start at ``src`` (at its folder, if it is a file). Links are followed.
``records``
    The attribute ``md`` (0 or 1) of every record.
``none``
    No record is MD; ``md_files`` is not looked at.
``auto``
    ``files`` if ``md_files`` is given, else ``data_log`` if there is a ``data_log*.txt`` (for a
    single file: the one of its number), else ``records`` if the first record has ``md``, else
    ``none``.
"""

from __future__ import annotations

import difflib
import glob
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from dens_ocp.dens.options import Section, one_of, parsed
from dens_ocp.errors import DensError, nearest

SOURCES = ("auto", "data_log", "files", "records", "none")
OPTIONS = ("md_source", "md_files")


def _entries(files: Any) -> tuple[str, ...]:
    files = [files] if isinstance(files, (str, os.PathLike)) else files
    if not isinstance(files, (list, tuple)):
        raise ValueError("is not a list of .lmdb files, globs or folders")
    return tuple(str(entry) for entry in files)


class MdOptions(Section):
    """The options above."""

    md_source: one_of(*SOURCES) = Field(
        "auto", description="where it is recorded which records are from MD"
    )
    md_files: Annotated[tuple[str, ...], BeforeValidator(_entries)] = Field(
        (),
        description="LMDB files, globs or folders in which all records are from MD; relative "
        "paths start at src",
    )

    @model_validator(mode="after")
    def _together(self) -> MdOptions:
        if self.md_files and self.md_source in ("data_log", "records"):
            raise ValueError(
                f"has md_source: {self.md_source} and md_files both given; keep only one of them "
                "(md_files is enough)"
            )
        if not self.md_files and self.md_source == "files":
            raise ValueError(
                "has md_source: files, which needs md_files, a list of .lmdb files, globs or "
                "folders"
            )
        return self


def parse_md_options(config: Mapping[str, Any]) -> MdOptions:
    """Read the options above from the config of one data set.

    Raises:
        DensError: misspelt option or value, options that contradict each other.
    """
    for key in config:
        word = str(key)
        if word not in OPTIONS and (
            word.lower().startswith("md") or difflib.get_close_matches(word, OPTIONS, 1, 0.8)
        ):
            raise DensError(
                f"unknown option {word} of a dens_lmdb data set{nearest(word, OPTIONS)} "
                f"(known: {', '.join(OPTIONS)})"
            )
    given = {name: config[name] for name in OPTIONS if name in config}
    return parsed(MdOptions, given, "a dens_lmdb data set")


def without_inherited_md(section: Mapping[str, Any], train: Mapping[str, Any]) -> dict[str, Any]:
    """``section`` (val, test, relax) with ``md_source: none``, unless it has options of its own.

    fairchem hands the settings of the training set down to the other sets, ``md_files`` too,
    which mean nothing in another folder. Outside training no structure is corrupted anyway.
    """
    own = any(option in section for option in OPTIONS)
    if own or not any(option in train for option in OPTIONS):
        return dict(section)
    return {**section, "md_source": "none"}


def source_of(options: MdOptions, src: Path, first_record_has_md: Callable[[], bool]) -> str:
    """What ``md_source: auto`` means for the data set ``src``."""
    if options.md_source != "auto":
        return options.md_source
    if options.md_files:
        return "files"
    if _own_log(src) if src.is_file() else _named_logs(src):
        return "data_log"
    if first_record_has_md():
        return "records"
    texts = [] if src.is_file() else sorted(src.glob("*.txt"))
    if texts:
        logging.warning(
            "%s holds %s, but no data_log*.txt, so no record counts as MD (md_source: data_log "
            "reads any *.txt)",
            src,
            texts[0].name,
        )
    return "none"


def flags_from_data_log(src: Path, db_paths: list[Path], counts: list[int]) -> np.ndarray:
    """(records,) bool, True for MD, from the text files beside the LMDBs.

    Args:
        src: folder or file of the data set.
        db_paths: its LMDB files, in order.
        counts: number of records of each.

    Raises:
        DensError: no such text file; number of lines and number of records disagree.
    """
    folder = _folder(src)
    logs = _logs(src)
    if not logs:
        raise DensError(
            f"md_source: data_log: {folder} holds no data_log*.txt for {src.name}; give "
            "md_files, or set md_source: none if no record is from MD"
        )
    flags = [np.fromiter(_lines_are_md(log), dtype=bool) for log in logs]
    lines, records = sum(len(each) for each in flags), sum(counts)
    fix = (
        "each record needs one line; use the logs that were written with these LMDBs, or give "
        "md_files, or set md_source: none if no record is from MD"
    )
    if lines != records:
        raise DensError(
            f"MD flags of {folder}: {lines} lines in {len(logs)} text file(s) ({logs[0].name} "
            f"first) but {records} records in {len(db_paths)} LMDB file(s); {fix}"
        )
    if len(logs) == len(db_paths):
        for log, each, path, count in zip(logs, flags, db_paths, counts, strict=True):
            if len(each) != count:
                raise DensError(
                    f"MD flags of {folder}: {log.name} has {len(each)} lines, but {path.name}, "
                    f"at the same position of the sorted lists, has {count} records; {fix}"
                )
    return np.concatenate(flags)


def flags_from_files(
    src: Path, db_paths: list[Path], counts: list[int], entries: tuple[str, ...]
) -> np.ndarray:
    """(records,) bool, True for the records of the files that ``md_files`` names.

    Args:
        src, db_paths, counts: as in :func:`flags_from_data_log`.
        entries: value of ``md_files``.

    Raises:
        DensError: an entry that is missing or names no file of the data set.
    """
    folder = _folder(src)
    own = {path.resolve(): index for index, path in enumerate(db_paths)}
    is_md = np.zeros(len(db_paths), dtype=bool)
    for entry in entries:
        target = folder / Path(entry).expanduser()
        # a name may hold characters of a pattern
        paths = [target] if target.exists() else [Path(path) for path in glob.glob(str(target))]
        found = [db for path in paths for db in (path.glob("*.lmdb") if path.is_dir() else [path])]
        if not found:
            raise DensError(
                f"md_files: {entry!r} names no .lmdb file (searched for {target}); paths are "
                f"absolute or start at {folder}"
            )
        members = [own[path.resolve()] for path in found if path.resolve() in own]
        if not members:
            raise DensError(
                f"md_files: {entry!r} names {min(found)}, which is not part of the data set "
                f"{src}; fairchem reads only the *.lmdb files directly in that folder, so link "
                "them there"
            )
        is_md[members] = True
    return np.repeat(is_md, counts)


def _folder(src: Path) -> Path:
    return src.parent if src.is_file() else src


def _lines_are_md(log: Path) -> Iterator[bool]:
    with open(log, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            yield "relaxations" not in line and "md" in line


def _named_logs(folder: Path) -> list[Path]:
    return sorted(folder.glob("data_log*.txt"))


def _own_log(file: Path) -> Path | None:
    """``data_log.0003.txt`` for ``data.0003.lmdb``, if there is one."""
    number = "".join(file.suffixes[:-1])
    log = file.with_name(f"data_log{number}.txt")
    return log if number and log.is_file() else None


def _logs(src: Path) -> list[Path]:
    if src.is_file():
        own = _own_log(src)
        if own is not None:
            return [own]
        if len(list(src.parent.glob("*.lmdb"))) > 1:
            return []
    folder = _folder(src)
    return _named_logs(folder) or sorted(folder.glob("*.txt"))
