"""Pickles that leave a mark when they are loaded by the book."""

from __future__ import annotations

from pathlib import Path


class LeavesAMark:
    """Its pickle creates the file ``mark`` while it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (exec, (f"open({str(self.mark)!r}, 'w').close()",))
