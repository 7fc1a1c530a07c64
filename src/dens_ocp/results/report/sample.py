"""A random sample of bounded size from rows that arrive in pieces."""

from __future__ import annotations

import numpy as np


class Sample:
    """Keeps at most ``limit`` of the rows added, each with the same probability.

    Every row draws a number; those with the smallest are kept.

    Args:
        limit: rows to keep.
        columns: numbers in a row.
        seed: of the choice.
    """

    def __init__(self, limit: int, columns: int, seed: int = 0) -> None:
        self.limit, self.columns, self.seen = limit, columns, 0
        self._generator = np.random.default_rng(seed)
        self._rows: list[np.ndarray] = []
        self._draws: list[np.ndarray] = []
        self._held = 0

    def add(self, rows: np.ndarray) -> None:
        """Add ``rows`` (n, columns)."""
        self._rows.append(np.asarray(rows, np.float32).reshape(-1, self.columns))
        self._draws.append(self._generator.random(len(self._rows[-1])))
        self.seen += len(self._rows[-1])
        self._held += len(self._rows[-1])
        if self._held > 2 * self.limit:
            self._shrink()

    def _shrink(self) -> None:
        rows, draws = np.concatenate(self._rows), np.concatenate(self._draws)
        if len(rows) > self.limit:
            kept = np.sort(np.argpartition(draws, self.limit)[: self.limit])
            rows, draws = rows[kept], draws[kept]
        self._rows, self._draws, self._held = [rows], [draws], len(rows)

    @property
    def rows(self) -> np.ndarray:
        """(n, columns) float32, n <= ``limit``, in the order they were added."""
        if not self._rows:
            return np.zeros((0, self.columns), np.float32)
        self._shrink()
        return self._rows[0]
