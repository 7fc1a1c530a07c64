"""Writes a leaderboard file; it takes its place only when the checker has nothing to say."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import Board
from dens_ocp.results.leaderboard.reference import Reference
from dens_ocp.results.leaderboard.submission_checker import check_submission
from dens_ocp.results.leaderboard.submission_report import Report
from dens_ocp.results.leaderboard.submission_sources import Choices, read_source


def make_submission(
    out: Path,
    task: str,
    board: Board,
    sources: Mapping[str, Path],
    references: Mapping[str, Reference] | None = None,
    choices: Choices | None = None,
    force: bool = False,
) -> Report:
    """Make the leaderboard file ``out`` from the results of all splits.

    The same results give the same bytes.

    Args:
        out: npz file.
        task: ``s2ef``, ``is2re`` or ``is2rs``.
        sources: npz file or folder of trajectories by split; see :mod:`submission_sources`.
        references: the test set by split, to compare with.
        force: replace ``out`` if it exists.

    Returns:
        The checker's report, without problems.

    Raises:
        DensError: every problem that was found; ``out`` is then as it was.
    """
    out, choices, references = Path(out), choices or Choices(), references or {}
    if out.suffix != ".npz":
        raise DensError(f"--out: {out} must end in .npz")
    if out.exists() and not force:
        raise DensError(
            f"--out: {out} exists already; replace it with --force, or choose another name"
        )
    _check_sources(sources, board)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.stem}.npz")
    problems: list[str] = []
    notes: list[str] = []

    def arrays() -> Iterator[tuple[str, np.ndarray]]:
        for split in board.splits:
            try:
                found, said = read_source(
                    task, Path(sources[split]), references.get(split), choices
                )
            except DensError as error:
                problems.append(f"{split}: {error}")
                continue
            notes.extend(f"{split}: {note}" for note in said)
            for key, array in found.items():
                if array.dtype.hasobject:
                    problems.append(f"{split}: {split}_{key} holds Python objects")
                elif not problems:
                    yield f"{split}_{key}", array

    try:
        _write_npz(temporary, arrays())
        if problems:
            raise _refused(out, problems)
        report = check_submission(temporary, task, board, references, choices.atoms)
        if not report.ok:
            raise _refused(out, report.problems)
        os.replace(temporary, out)
    finally:
        temporary.unlink(missing_ok=True)
    report.path, report.notes = out, notes + report.notes
    return report


def _check_sources(sources: Mapping[str, Path], board: Board) -> None:
    options = {split: "--" + split.replace("_", "-") for split in board.splits}
    if foreign := [split for split in sources if split not in options]:
        raise DensError(f"{board.name} has no split {foreign[0]!r}; it has {', '.join(options)}")
    if missing := [option for split, option in options.items() if split not in sources]:
        raise DensError(
            f"{board.name} requires {len(options)} splits; these are missing: {', '.join(missing)}"
        )
    seen: dict[Path, str] = {}
    for split, path in sources.items():
        if not Path(path).exists():
            raise DensError(f"{options[split]}: {path} does not exist")
        twin = seen.setdefault(Path(path).resolve(), split)
        if twin != split:
            raise DensError(
                f"{options[split]}: {path} is also given for {twin}; give each split its own file"
            )


def _refused(out: Path, problems: list[str]) -> DensError:
    lines = "\n  ".join(problems)
    return DensError(f"{out} was not written, because of {len(problems)} problem(s):\n  {lines}")


def _write_npz(path: Path, arrays: Iterator[tuple[str, np.ndarray]]) -> None:
    """``numpy.savez_compressed`` of arrays that come one at a time."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
