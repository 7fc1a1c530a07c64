"""Pieces of the checker and the writer, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dens_ocp.results.leaderboard import array_checks
from dens_ocp.results.leaderboard.reference import Reference
from dens_ocp.results.leaderboard.submission_sources import Choices, read_source


def test_rows():
    rows = np.zeros((10, 3), np.float16)
    rows[[2, 3, 9], [0, 1, 2]] = [np.nan, np.inf, -np.inf]
    rows[5] = [0, 3, 4]
    assert array_checks.rows_not_finite(rows).tolist() == [2, 3, 9]
    assert array_checks.rows_not_finite(rows[:, 0]).tolist() == [2]
    assert array_checks.largest_norm(rows) == 5.0
    assert array_checks.rows_not_finite(rows[:0]).tolist() == []


def test_free_atoms_of_structures_of_different_sizes(tmp_path):
    """Structures of 2, 3 and 1 atoms, predicted in another order than the data set's."""
    fixed = np.array([1, 0, 0, 1, 0, 0], bool)
    names = np.array(["1_0", "2_0", "3_0"])
    reference = Reference(
        tmp_path, names, names, fixed, natoms=np.array([2, 3, 1]), nfree=np.array([1, 2, 1])
    )
    order = [2, 0, 1]
    every = [np.full((n, 3), 10 * s) + np.arange(n)[:, None] for s, n in ((3, 1), (1, 2), (2, 3))]
    free = [np.array([30]), np.array([11]), np.array([20, 22])]
    path = Path(tmp_path / "a.npz")
    np.savez(
        path, ids=names[order], energy=np.zeros(3), forces=np.concatenate(every).astype(float),
        chunk_idx=np.array([1, 3]),
    )  # fmt: skip
    reduced, _ = read_source("s2ef", path, reference, Choices())
    assert reduced["forces"][:, 0].tolist() == np.concatenate(free).tolist()
    assert reduced["chunk_idx"].tolist() == [1, 2]
    np.savez(path, **reduced)
    filled, _ = read_source("s2ef", path, reference, Choices(atoms="all", fill_fixed=True))
    assert filled["forces"][:, 1].tolist() == [30, 0, 11, 20, 0, 22]
    assert filled["chunk_idx"].tolist() == [1, 3]
