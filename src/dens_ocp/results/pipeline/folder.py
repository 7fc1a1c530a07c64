"""The folder of an evaluation: where things lie, what was asked for, who works in it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import Board, board
from dens_ocp.whole_files import write_text


class EvaluationFolder:
    """The folder that ``dens-ocp evaluate`` makes.

    ::

        evaluation.json                       what is evaluated: checkpoint, data, settings
        predictions/<split>.npz               S2EF predictions, as fairchem writes them
        relaxations/<split>/trajectories/     one <sid>.traj for each system
        relaxations/<split>/relaxed_positions.npz
        relaxed_cells/<split>/                one <sid>.traj for each system, summary.json; of
                                              several shards in folders 0-of-4, ...
        matbench_discovery/<name>-<split>.json.gz   structures and energies of relaxed cells
        scores.txt, scores.json, scores.tex   where there are labels
        submission/s2ef.npz, is2re.npz, is2rs.npz
        report/index.html
        configs/, output/, runs/              each run of fairchem: config, output, its own files
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.description_file = self.path / "evaluation.json"
        self.runs = self.path / "runs"
        self.report = self.path / "report"

    def predictions(self, split: str) -> Path:
        return self.path / "predictions" / f"{split}.npz"

    def trajectories(self, split: str) -> Path:
        return self.path / "relaxations" / split / "trajectories"

    def positions(self, split: str) -> Path:
        return self.path / "relaxations" / split / "relaxed_positions.npz"

    def cells(self, split: str, shard: int = 0, shards: int = 1) -> Path:
        folder = self.path / "relaxed_cells" / split
        return folder if shards == 1 else folder / f"{shard}-of-{shards}"

    def matbench_discovery(self, name: str, split: str) -> Path:
        return self.path / "matbench_discovery" / f"{name}-{split}.json.gz"

    def results(self, task: str, split: str) -> Path:
        """What ``dens-ocp evaluate`` scores and submits as ``s2ef``, ``is2re`` or ``is2rs``."""
        of_task = {"s2ef": self.predictions, "is2re": self.trajectories, "is2rs": self.positions}
        return of_task[task](split)

    def scores(self, kind: str) -> Path:
        """``kind``: ``txt``, ``json`` or ``tex``."""
        return self.path / f"scores.{kind}"

    def submission(self, task: str) -> Path:
        return self.path / "submission" / f"{task}.npz"

    def config(self, job: str) -> Path:
        return self.path / "configs" / f"{job}.yml"

    def output(self, job: str) -> Path:
        return self.path / "output" / f"{job}.log"

    @cached_property
    def description(self) -> dict[str, Any]:
        """What ``evaluation.json`` says: ``board``, ``checkpoint``, ``versions``, and in ``splits``
        by name the sections of data sets ``s2ef`` and ``is2re`` (or null). Empty without the file.

        Raises:
            DensError: it is not valid.
        """
        if not self.description_file.is_file():
            return {}
        try:
            return dict(json.loads(self.description_file.read_text()))
        except (ValueError, TypeError) as error:
            raise DensError(
                f"{self.description_file} cannot be read: evaluation.json is not valid JSON of an "
                f"object ({error}); run `dens-ocp evaluate` again"
            ) from None

    @property
    def board(self) -> Board | None:
        """The board that the evaluation was for; None where that is not said.

        Raises:
            DensError: there is no such board.
        """
        name = self.description.get("board")
        return None if name is None else board(str(name))

    @property
    def checkpoint(self) -> Path | None:
        """The evaluated checkpoint, or None where it is not said or not there any more."""
        told = self.description.get("checkpoint")
        path = self.path / told if told else None  # an absolute path stays as it is
        return path if path is not None and path.is_file() else None

    @property
    def splits(self) -> dict[str, dict[str, Any]]:
        """Sections of data sets by split."""
        return self.description.get("splits") or {}

    def sections(self, task: str) -> dict[str, dict[str, Any]]:
        """The section of the data set (``src``, ``format``, ...) of each split that has one.

        Args:
            task: ``s2ef``; or ``is2re`` or ``is2rs``, which have the same data sets.
        """
        name = "s2ef" if task == "s2ef" else "is2re"
        return {split: each[name] for split, each in self.splits.items() if each.get(name)}

    def describe(self, description: dict[str, Any], redo: Callable[[str], bool]) -> None:
        """Write ``evaluation.json``; results of other settings are not mixed with new ones.

        Args:
            description: with ``checkpoint_sha256`` and ``jobs``, each with all of its settings.
            redo: whether results of the job of this name are there.

        Raises:
            DensError: the folder holds results of another checkpoint or other settings.
        """
        self.__dict__.pop("description", None)  # another process may have written it
        before = self.description
        done = [name for name in before.get("jobs", ()) if redo(name)]
        if done and before["checkpoint_sha256"] != description["checkpoint_sha256"]:
            raise DensError(
                f"--out: {self.path} holds results of another checkpoint "
                f"({before['checkpoint']}); give another folder"
            )
        for name in done:
            then, now = before["jobs"][name], description["jobs"].get(name)
            if now is not None and then != now:
                raise DensError(
                    f"--out: {self.path} holds results of {name} with other settings "
                    f"({difference(then, now)}); give another folder, or remove these results"
                )
        kept = {name: before["jobs"][name] for name in done}
        self.description = {**description, "jobs": {**kept, **description["jobs"]}}
        write_text(self.description_file, json.dumps(self.description, indent=2) + "\n")

    @contextmanager
    def locked(
        self, say: Callable[[str], None], runs: Sequence[str] = ()
    ) -> Iterator[tuple[int, ...]]:
        """One evaluation at a time works in the folder; or several, each on runs of its own.

        A killed evaluation can leave a run of fairchem behind, which goes on: it holds the locks
        through the descriptors that it inherited, and is waited for. (The locks of ``filelock``
        are neither shared nor inherited.)

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
                    say(
                        "waiting: another evaluation, or a run that it left behind, is in "
                        f"progress in {self.path}"
                    )
                    fcntl.flock(descriptor, kind)
            yield tuple(descriptors)


def difference(before: Any, now: Any, path: str = "") -> str:
    """The first setting that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            if before.get(key) != now.get(key):
                return difference(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))
    return f"{path}: {before!r} before, {now!r} now"


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
