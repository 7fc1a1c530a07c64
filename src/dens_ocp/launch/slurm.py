"""``--submit``: runs that submitit starts on SLURM, saved and requeued.

fairchem-core 1.10.0 saves in the signal handler, in the middle of a step (a batch is lost), gives
up after three time limits, asks a CPU cluster for GPUs, and lets ranks wait for one that has died.
Without ``srun`` submitit silently runs the job on the login node.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common import distutils
from submitit import AutoExecutor
from submitit.helpers import Checkpointable, DelayedSubmission

from dens_ocp.errors import DensError
from dens_ocp.launch import ranks
from dens_ocp.launch.rank_process import run_launched_rank
from dens_ocp.launch.timestamps import unique_timestamp
from dens_ocp.patched import swapped

_TIME_LIMITS = 1000
"""How often a run may reach the time limit of its job and be requeued; fairchem: 3."""


class ClusterExecutor(AutoExecutor):
    """submitit's, for SLURM only.

    Args:
        folder: for logs. cpu: ask for no GPU. options: submitit's.

    Raises:
        DensError: there is no SLURM here.
    """

    def __init__(self, folder: Path, cpu: bool = False, **options: Any) -> None:
        if shutil.which("srun") is None:
            raise DensError(
                "--submit: there is no SLURM on this machine (srun is not on the PATH); submit "
                "from a login node, or leave --submit out"
            )
        super().__init__(
            folder, cluster="slurm", **{**options, "slurm_max_num_timeout": _TIME_LIMITS}
        )
        self._cpu = cpu

    def update_parameters(self, **options: Any) -> None:
        """submitit's; a rank that dies takes the others with it."""
        if self._cpu:
            options.pop("gpus_per_node", None)
        options.setdefault("slurm_srun_args", ["--kill-on-bad-exit=1"])
        super().update_parameters(**options)

    def map_array(self, function: Any, configs: list[dict[str, Any]]) -> list[Any]:
        """submitit's; a run has its name before it starts, so that whatever ends its job, the
        requeued one goes on with it."""
        for config in configs:
            if not config["timestamp_id"]:
                identifier = config["identifier"]
                config["timestamp_id"] = unique_timestamp(torch.device("cpu"), identifier)
            logging.info("Checkpoints will be written to checkpoints/%s", config["timestamp_id"])
        return super().map_array(function, configs)


def submit_array(runs: Sequence[Sequence[str]]) -> list[str]:
    """Submit several runs as one SLURM job array, with fairchem's own ``--submit``.

    Args:
        runs: arguments of ``fairchem main`` of each, ``--submit`` among them; resources of the
            array are those of the first one.

    Returns:
        Ids of the array's tasks.

    Raises:
        DensError: there is no SLURM here.
    """
    import fairchem.core._cli as fairchem_cli
    from fairchem.core.common.flags import flags
    from fairchem.core.common.utils import build_config

    parsed = [flags.get_parser().parse_args(list(words)) for words in runs]
    first = argparse.Namespace(**{**vars(parsed[0]), "sweep_yml": "runs"})
    configs = [build_config(args, []) for args in parsed]
    submitted: list[str] = []

    class Executor(ClusterExecutor):
        def map_array(self, function: Any, configs: list[dict[str, Any]]) -> list[Any]:
            jobs = super().map_array(function, configs)
            submitted.extend(job.job_id for job in jobs)
            return jobs

    with (
        swapped(fairchem_cli, "create_grid", lambda config, sweep: configs),
        swapped(fairchem_cli, "AutoExecutor", partial(Executor, cpu=first.cpu)),
        swapped(fairchem_cli, "Runner", SubmittedRun),
    ):
        fairchem_cli.main(first, [])
    return submitted


class SubmittedRun(Checkpointable):
    """One rank of a submitted run, in place of fairchem's ``Runner``.

    submitit's signal handler is there before the run's own one. In training that one waits for the
    end of the step, saves, and calls submitit's, which requeues the job; predictions and
    relaxations go on from their files, so submitit's is called at once.
    """

    def __call__(self, config: dict[str, Any]) -> None:
        """Run.

        Args:
            config: fairchem's config of the run.
        """
        rank = ranks.of_environment(os.environ)
        if rank is None:
            distutils.setup_env_local()
            config = {**config, "submit": False}
        else:
            config = ranks.joining(config, rank)
        run_launched_rank(config)

    def checkpoint(self, config: dict[str, Any]) -> DelayedSubmission:
        """What the requeued job does: the same run, which has a checkpoint now."""
        return DelayedSubmission(SubmittedRun(), config)
