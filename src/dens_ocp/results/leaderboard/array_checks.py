"""Checks of single arrays of a leaderboard file: each returns what is wrong, as text.

Vectorised: a split has up to a million structures.
"""

from __future__ import annotations

import numpy as np
import pandas as pd


def examples(ids: np.ndarray, shown: int = 3) -> str:
    """The first few ids and the number of the others.

    >>> examples(np.array(["a", "b", "c", "d"]))
    'a, b, c and 1 more'
    """
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return ", ".join(ids[:shown]) + more


def check_ids(ids: np.ndarray) -> list[str]:
    """Text or integers (S,), none empty, none twice."""
    if ids.ndim != 1:
        return [f"has shape {ids.shape}, expected one id for each structure: (structures,)"]
    if ids.dtype.kind not in "Uiu":
        return [f"has dtype {ids.dtype}, expected text (numpy's U)"]
    if len(ids) == 0:
        return ["is empty"]
    names, wrong = pd.Index(ids.astype(str)), []
    if empty := np.count_nonzero(names == ""):
        wrong.append(f"has {empty} empty id(s)")
    if not names.is_unique:
        twice = names[names.duplicated()].unique()
        wrong.append(f"has {len(twice)} id(s) more than once: {examples(twice)}")
    return wrong


def check_floats(array: np.ndarray, columns: int | None, half: str | None) -> list[str]:
    """Dtype and shape of numbers.

    Args:
        columns: 3 for an array with a row per atom, None for one number per structure.
        half: why float16 is refused, or None if it is not.
    """
    wrong = []
    if array.dtype not in (np.float16, np.float32, np.float64):
        wrong.append(f"has dtype {array.dtype}, expected float16, float32 or float64")
    elif array.dtype == np.float16 and half is not None:
        wrong.append(f"has dtype float16: {half}")
    if columns is None:
        fits, expected = array.ndim == 1 or array.shape[1:] == (1,), "(structures,)"
    else:
        fits, expected = array.ndim == 2 and array.shape[1] == columns, f"(atoms, {columns})"
    if not fits:
        wrong.append(f"has shape {array.shape}, expected {expected}")
    return wrong


def rows_not_finite(array: np.ndarray) -> np.ndarray:
    """Indices of rows with NaN or infinity."""
    return np.flatnonzero(~np.isfinite(array.reshape(len(array), array[:1].size)).all(1))


def largest_norm(array: np.ndarray) -> float:
    """Largest norm of a row (n, 3); NaN and infinity are left out."""
    squares = np.einsum("ij,ij->i", array, array, dtype=np.float64)  # without a copy in float64
    return float(squares[np.isfinite(squares)].max(initial=0.0)) ** 0.5


def check_chunks(chunk_idx: np.ndarray, structures: int, rows: int) -> list[str]:
    """Whether ``np.split(array, chunk_idx)`` gives one piece for each structure."""
    if chunk_idx.dtype.kind not in "iu" and not (chunk_idx.size == 0 and structures == 1):
        return [f"has dtype {chunk_idx.dtype}, expected integers"]
    if chunk_idx.ndim != 1:
        return [f"has shape {chunk_idx.shape}, expected (structures - 1,)"]
    if len(chunk_idx) != structures - 1:
        hint = "it must be the cumulative sum of the numbers of atoms, without the last"
        if len(chunk_idx) == structures and chunk_idx[-1] == rows:
            hint = "the end of the last structure must be left out"
        return [f"has {len(chunk_idx)} entries for {structures} structures, not one less; {hint}"]
    bounds = chunk_bounds(chunk_idx, rows)
    falls = np.flatnonzero(np.diff(bounds) < 0)
    if not len(falls):
        return []
    where = falls[0]
    return [
        f"does not cut an array with {rows} rows: it goes from {bounds[where]} to "
        f"{bounds[where + 1]} at structure {where} ({len(falls)} such place(s))"
    ]


def chunk_bounds(chunk_idx: np.ndarray, rows: int) -> np.ndarray:
    """(structures + 1,) int64: 0, the cuts, the number of rows."""
    return np.concatenate([[0], chunk_idx.astype(np.int64), [rows]])
