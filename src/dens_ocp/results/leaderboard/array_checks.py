"""Checks of single arrays of a leaderboard file: each returns what is wrong, as text.

Vectorised, and in blocks where an array has a row per atom: a split has up to a million structures.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

ROWS = 1 << 20
"""Atoms that are looked at at a time."""


def examples(ids: np.ndarray, shown: int = 3) -> str:
    """The first few ids and the number of the others.

    >>> examples(np.array(["a", "b", "c", "d"]))
    'a, b, c and 1 more'
    """
    text = ", ".join(_text(each) for each in ids[:shown])
    return text + (f" and {len(ids) - shown} more" if len(ids) > shown else "")


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def compact(ids: np.ndarray) -> np.ndarray:
    """Ids as bytes (S,), a quarter of the memory of text; integers as their digits."""
    ids = ids if ids.dtype.kind in "US" else ids.astype(str)
    try:
        return ids.astype("S")
    except UnicodeEncodeError:
        return np.char.encode(ids, "utf-8")


def check_ids(ids: np.ndarray) -> list[str]:
    """Text or integers (S,), none empty, none twice."""
    if ids.ndim != 1:
        return [f"has shape {ids.shape}, expected one id for each structure: (structures,)"]
    if ids.dtype.kind not in "Uiu":
        return [f"has dtype {ids.dtype}, expected text (numpy's U)"]
    if len(ids) == 0:
        return ["is empty"]
    names = compact(ids)
    wrong = []
    if (empty := np.count_nonzero(names == b"")) > 0:
        wrong.append(f"has {empty} empty id(s)")
    unique, counts = np.unique(names, return_counts=True)
    if len(unique) < len(names):
        twice = unique[counts > 1]
        wrong.append(f"has {len(twice)} id(s) more than once: {examples(twice)}")
    return wrong


def check_floats(array: np.ndarray, columns: int | None, half: str | None) -> list[str]:
    """Dtype and shape of numbers.

    Args:
        columns: 3 for an array with a row per atom, None for one number per structure.
        half: why float16 is refused, or None if it is not.
    """
    wrong = []
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        wrong.append(f"has dtype {array.dtype}, expected float16, float32 or float64")
    elif array.dtype == np.float16 and half is not None:
        wrong.append(f"has dtype float16: {half}")
    expected = "(structures,)" if columns is None else f"(atoms, {columns})"
    fits = array.ndim == 1 if columns is None else array.ndim == 2 and array.shape[1] == columns
    if not fits and not (columns is None and array.ndim == 2 and array.shape[1] == 1):
        wrong.append(f"has shape {array.shape}, expected {expected}")
    return wrong


def blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Rows of ``array``, :data:`ROWS` at a time, with the index of the first."""
    return ((start, array[start : start + ROWS]) for start in range(0, len(array), ROWS))


def rows_not_finite(array: np.ndarray) -> np.ndarray:
    """Indices of rows with NaN or infinity."""
    found = [
        start + np.flatnonzero(~np.isfinite(part.reshape(len(part), -1)).all(1))
        for start, part in blocks(array)
    ]
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def largest_norm(array: np.ndarray) -> float:
    """Largest norm of a row (n, 3); NaN and infinity are left out."""
    largest = 0.0
    for _, part in blocks(array):
        squares = np.square(part.astype(np.float64)).sum(1)
        largest = max(largest, float(squares[np.isfinite(squares)].max(initial=0.0)))
    return largest**0.5


def check_chunks(chunk_idx: np.ndarray, structures: int, rows: int) -> list[str]:
    """Whether ``np.split(array, chunk_idx)`` gives one piece for each structure."""
    if chunk_idx.dtype.kind not in "iu" and not (chunk_idx.size == 0 and structures == 1):
        return [f"has dtype {chunk_idx.dtype}, expected integers"]
    if chunk_idx.ndim != 1:
        return [f"has shape {chunk_idx.shape}, expected (structures - 1,)"]
    if len(chunk_idx) != structures - 1:
        hint = ""
        if len(chunk_idx) == structures:
            hint = (
                "; the end of the last structure must be left out"
                if chunk_idx[-1] == rows
                else "; it must be the cumulative sum of the numbers of atoms, without the last"
            )
        return [f"has {len(chunk_idx)} entries for {structures} structures, not one less{hint}"]
    bounds = chunk_bounds(chunk_idx, rows)
    falls = np.flatnonzero(np.diff(bounds) < 0)
    if len(falls):
        where = falls[0]
        return [
            f"does not cut an array with {rows} rows: it goes from {bounds[where]} to "
            f"{bounds[where + 1]} at structure {where} ({len(falls)} such place(s))"
        ]
    return []


def chunk_bounds(chunk_idx: np.ndarray, rows: int) -> np.ndarray:
    """(structures + 1,) int64: 0, the cuts, the number of rows."""
    return np.concatenate([[0], chunk_idx.astype(np.int64), [rows]])


def positions_in(names: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Index in ``names`` of each of ``ids``, -1 where it is not there; both as bytes."""
    order = np.argsort(names, kind="stable")
    place = np.searchsorted(names, ids, sorter=order)
    index = order[np.minimum(place, len(names) - 1)]
    return np.where(names[index] == ids, index, -1)
