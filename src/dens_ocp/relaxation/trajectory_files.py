"""Names of the files of relaxations: what run-relaxations writes and the other commands read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETTINGS_FILE = "relaxations.json"
SYSTEMS = "systems"
"""Entry of the settings file: number of systems of the data set that is relaxed."""

_FINISHED = ".traj"
_OF_FAIRCHEM = ".traj_tmp"
_UNFINISHED = ".traj_unfinished"


def finished(folder: Path, sid: str) -> Path:
    """The trajectory of a system whose relaxation has ended."""
    return folder / f"{sid}{_FINISHED}"


def unfinished(folder: Path, sid: str) -> Path:
    """The trajectory while the system is relaxed, and after a run was killed; hidden."""
    return folder / f".{sid}{_UNFINISHED}"


def all_finished(folder: Path) -> dict[str, Path]:
    """By sid."""
    return {path.stem: path for path in folder.glob(f"*{_FINISHED}")}


def all_unfinished(folder: Path, of_fairchem: bool = True) -> dict[str, Path]:
    """By sid: those of our trainer, and those of plain fairchem (``<sid>.traj_tmp``)."""
    found = {path.stem: path for path in folder.glob(f"*{_OF_FAIRCHEM}")} if of_fairchem else {}
    ours = folder.glob(unfinished(Path(), "*").name)
    return found | {path.name[1 : -len(_UNFINISHED)]: path for path in ours}


def settings(folder: Path) -> dict[str, Any] | None:
    """What the settings file of a folder holds; None: there is none that can be read."""
    try:
        content = json.loads((folder / SETTINGS_FILE).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def number_of_systems(folder: Path) -> int | None:
    """Of the data set that was relaxed into a folder; None: not known."""
    count = (settings(folder) or {}).get(SYSTEMS)
    return count if isinstance(count, int) else None
