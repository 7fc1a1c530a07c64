"""A demo that was interrupted: the same call goes on with its runs."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from dens_ocp.whole_files import write_text

NOTE = "unfinished.json"


@contextmanager
def run_id_of(workdir: Path, arguments: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """The name of the runs of a demo, and whether they are those of an interrupted one.

    While the context lasts, and after Ctrl-C or a kill, a note in ``workdir`` says with which
    arguments they were started. After the end, or an error, there is none.

    Args:
        workdir: of the demo.
        arguments: what the runs depend on.
    """
    path = workdir / NOTE
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError):
        before = {}
    arguments = json.loads(json.dumps(arguments, default=str))
    goes_on = before.get("arguments") == arguments and not _is_at_work(before.get("process"))
    # the time to the microsecond: fairchem's own names are as coarse as 128 s
    new = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    run_id = before["run_id"] if goes_on else new
    note = {"run_id": run_id, "arguments": arguments, "process": os.getpid()}
    write_text(path, json.dumps(note) + "\n")
    try:
        yield run_id, goes_on
    except Exception:
        path.unlink(missing_ok=True)
        raise
    path.unlink(missing_ok=True)


def _is_at_work(process: int | None) -> bool:
    if process is None or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
