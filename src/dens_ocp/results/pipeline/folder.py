"""The folder of an evaluation: what was asked for, who works in it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.results.scores.places import EvaluationPlaces
from dens_ocp.whole_files import write_text


class EvaluationFolder(EvaluationPlaces):
    """An evaluation's folder, to work in."""

    def describe(self, description: dict[str, Any], redo: Callable[[str], bool]) -> None:
        """Write ``evaluation.json``; results of other settings are not mixed with new ones.

        Args:
            description: with ``checkpoint_sha256`` and ``jobs``, each with all of its settings.
            redo: whether results of the job of this name are there.

        Raises:
            DensError: the folder holds results of another checkpoint or other settings.
        """
        if self.description_file.is_file():
            before = json.loads(self.description_file.read_text())
            done = [name for name in before["jobs"] if redo(name)]
            if done and before["checkpoint_sha256"] != description["checkpoint_sha256"]:
                raise DensError(
                    f"--out: {self.path} holds results of another checkpoint "
                    f"({before['checkpoint']}); name another folder"
                )
            for name in done:
                then, now = before["jobs"][name], description["jobs"].get(name)
                if now is not None and then != now:
                    raise DensError(
                        f"--out: {self.path} holds results of {name} with other settings "
                        f"({difference(then, now)}); name another folder, or remove these results"
                    )
            kept = {name: before["jobs"][name] for name in done}
            description = {**description, "jobs": {**kept, **description["jobs"]}}
        write_text(self.description_file, json.dumps(description, indent=2) + "\n")

    @contextmanager
    def locked(
        self, say: Callable[[str], None], runs: Sequence[str] = ()
    ) -> Iterator[tuple[int, ...]]:
        """One evaluation at a time works in the folder; or several, each on runs of its own.

        A killed evaluation can leave a run of fairchem behind, which goes on: it holds the locks
        through the descriptors that it inherited, and is waited for.

        Args:
            say: prints a line when there is somebody to wait for.
            runs: work on these only (the tasks of a job array), beside others on other runs.

        Yields:
            The locks' file descriptors, to be handed on to processes.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        wanted = [(".lock", fcntl.LOCK_SH if runs else fcntl.LOCK_EX)]
        wanted += [(f".lock-{run}", fcntl.LOCK_EX) for run in sorted(set(runs))]
        with ExitStack() as opened:
            descriptors = []
            for name, kind in wanted:
                descriptor = os.open(self.path / name, os.O_RDWR | os.O_CREAT, 0o644)
                opened.callback(os.close, descriptor)
                descriptors.append(descriptor)
                try:
                    fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                except BlockingIOError:
                    say(f"waiting: an evaluation, or a run that it left, is at work in {self.path}")
                    fcntl.flock(descriptor, kind)
            yield tuple(descriptors)


def difference(before: Any, now: Any, path: str = "") -> str:
    """The first setting that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
                return difference(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return f"{path}: {before!r} then, {now!r} now"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
        return digest.hexdigest()
