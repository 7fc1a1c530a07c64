"""A run of an evaluation that relaxes cells: ASE's optimizers in a process of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dens_ocp.errors import DensError
from dens_ocp.relaxation.cell_trajectories import SUMMARY
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.job import Job
from dens_ocp.results.pipeline.options import EvaluationSettings

MODE = "relax_cell"
_OF_SHARDS = re.compile(r"-\d+-of-\d+$")
_HANDED_ON = ("--cpu", "--amp")


@dataclass(frozen=True)
class CellJob(Job):
    """The relaxations of a split, or of a shard of it.

    Attributes:
        config: for ``dens-ocp relax-cells``.
        shard, shards: which part, counted from 0, and their number.
    """

    shard: int = 0
    shards: int = 1

    @property
    def name(self) -> str:
        """``relax_cell-wbm``, or of a shard ``relax_cell-wbm-0-of-4``."""
        part = "" if self.shards == 1 else f"-{self.shard}-of-{self.shards}"
        return f"{MODE}-{self.split}{part}"

    @property
    def result(self) -> Path:
        return self.folder.cells(self.split, self.shard, self.shards) / SUMMARY

    def collect(self) -> bool:
        return self.result.is_file()

    def _call(
        self, config: Path, checkpoint: Path, arguments: list[str]
    ) -> tuple[list[str], dict[str, Any]]:
        words = [str(config), "--checkpoint", str(checkpoint), *_handed_on(arguments)]
        return words, {"command": "relax-cells", "environment": on_gpu(self.shard, arguments)}


def cell_jobs(settings: EvaluationSettings, folder: EvaluationFolder) -> list[Job]:
    """The runs that relax cells, those of all splits and shards."""
    jobs: list[Job] = []
    shards = settings.relaxation.shards
    for split, section in settings.relax_cell.items():
        for shard in range(shards):
            config = {
                "where": f"evaluation.relax_cell.{split}",
                "dataset": section,
                "relaxation": settings.relaxation.model_dump(),
                "shard": shard,
                "folder": str(folder.cells(split, shard, shards)),
            }
            jobs.append(CellJob(MODE, split, config, folder, shard, shards))
    return jobs


def refuse_submit(jobs: Sequence[Job]) -> None:
    """Nothing is submitted where one of the runs cannot be.

    Raises:
        DensError: a run relaxes cells.
    """
    for job in jobs:
        if isinstance(job, CellJob):
            raise DensError(
                f"--submit: {job.name} is not a run of fairchem, and only those can be submitted "
                "with --submit; submit a job array with slurm/evaluate (slurm/README.md), or run "
                f"dens-ocp evaluate ... --only {job.name} in your own job"
            )


def split_of(name: str) -> str | None:
    """The split of a run of this kind by its name; None: it is another one's.

    >>> split_of("relax_cell-wbm-0-of-4"), split_of("relax_cell-wbm"), split_of("relax-id")
    ('wbm', 'wbm', None)
    """
    mode, _, rest = name.partition("-")
    return _OF_SHARDS.sub("", rest) if mode == MODE else None


def on_gpu(shard: int, arguments: list[str]) -> dict[str, str]:
    """The variable that shows one GPU to a shard: shards are dealt to ``--num-gpus`` of them.

    >>> on_gpu(5, ["--num-gpus", "4"])["CUDA_VISIBLE_DEVICES"], on_gpu(5, ["--cpu"])
    ('1', {})
    """
    if "--num-gpus" not in arguments or "--cpu" in arguments:
        return {}
    number = int(arguments[arguments.index("--num-gpus") + 1])
    visible = [each for each in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if each]
    visible = visible or [str(each) for each in range(number)]
    return {"CUDA_VISIBLE_DEVICES": visible[shard % min(number, len(visible))]}


def _handed_on(arguments: list[str]) -> list[str]:
    words = [word for word in arguments if word in _HANDED_ON]
    if "--seed" in arguments:
        place = arguments.index("--seed")
        words += arguments[place : place + 2]
    return words
