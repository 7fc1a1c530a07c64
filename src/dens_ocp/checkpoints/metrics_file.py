"""``metrics.jsonl`` of a run: what its trainer found, written by it and read by everything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

NAME = "metrics.jsonl"
"""In the run's folder of checkpoints: a JSON object a line, with ``split`` (``train``: means since
the line before, of rank 0; ``val``), ``step``, ``epoch``, ``time`` (seconds since 1970) and all
metrics in the units of the data. Lines of a step that a resumed run takes again come twice."""


def read(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """The lines of a run in their order, each step of a split once: as it was taken last.

    Args:
        folder: of the run's checkpoints. split: ``train`` or ``val``; None: all.

    Returns:
        Nothing where there is no file. A last line that is still being written is left out.
    """
    path = folder / NAME
    if not path.is_file():
        return []
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for text in path.read_text().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if split in (None, line["split"]):
            found.pop((line["split"], line["step"]), None)
            found[line["split"], line["step"]] = line
    return list(found.values())
