"""Submits with the project's scripts to the tests' SLURM, and watches the jobs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.conftest import ROOT
from tests.runs import environment
from tests.scenarios.slurm.single_host import SingleHostSlurm, Unavailable

_CLUSTER = """\
sbatch_options=(--time=30)
sbatch_options_cpu=(--time=30)
gpus_per_node={gpus_per_node}
device=cpu
cpus_per_gpu=1
gigabytes_per_gpu=1
gpu_request() {{ echo "--gpus-per-node=$1"; }}
seconds_to_save=60
set_up() {{ export PATH={bin}:$PATH; }}
"""


@dataclass(frozen=True)
class Jobs:
    """Runs in ``folder`` on ``slurm``, on the CPU; two processes per node unless told."""

    slurm: SingleHostSlurm
    folder: Path

    def run(self, *command: str | Path, gpus_per_node: int = 2) -> subprocess.CompletedProcess:
        """A command on the login node, in the folder."""
        cluster = self.folder / f"cluster-{gpus_per_node}.sh"
        cluster.write_text(
            _CLUSTER.format(bin=Path(sys.executable).parent, gpus_per_node=gpus_per_node)
        )
        return subprocess.run(
            [str(word) for word in command], cwd=self.folder,
            env=self.slurm.environment(environment(DENS_OCP_CLUSTER=str(cluster))),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def submit(self, script: str, *arguments: str | Path, gpus_per_node: int = 2) -> list[str]:
        """Call ``slurm/<script>``; returns the ids of the jobs."""
        done = self.run(ROOT / "slurm" / script, *arguments, gpus_per_node=gpus_per_node)
        assert done.returncode == 0, done.stdout + done.stderr
        lines = [line for line in done.stdout.splitlines() if line.startswith("job ")]
        return [line.split()[1].rstrip(":") for line in lines]

    def submit_itself(self, *arguments: str, ranks: int = 2) -> str:
        """``dens-ocp main --submit`` for ranks on the CPU; returns the id of the job."""
        done = self.run(
            sys.executable, "-m", "dens_ocp.tools.cli", "main", "--mode", "train", "--config-yml",
            "config.yml", "--submit", "--cpu", "--num-gpus", str(ranks), "--slurm-mem", "1",
            "--slurm-timeout", "1", "--print-every", "1", *arguments,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        (job,) = re.findall(r"Submitted jobs: (\d+)", done.stdout + done.stderr)
        return job

    def log(self, job_id: str) -> str:
        """What the job printed, all of its starts."""
        paths = [
            *self.folder.glob(f"logs/slurm/*-{job_id}.log"),
            *sorted(self.folder.glob(f"logs/{job_id}/{job_id}_*_log.*")),
        ]
        return "\n".join(path.read_text() for path in paths)

    def when_printed(self, words: str, action: Callable[[str], object], *job_ids: str) -> None:
        """Call ``action`` with each job as soon as it has printed ``words``."""
        waiting = list(job_ids)

        def none_is_left() -> bool:
            for job_id in list(waiting):
                if words in self.log(job_id):
                    action(job_id)
                    waiting.remove(job_id)
                else:
                    assert not self.slurm.ended(job_id), self._told(job_id)
            return not waiting

        self._wait(none_is_left, 300, *job_ids)

    def wait_until_ended(self, *job_ids: str, seconds: float = 300) -> None:
        """Until the jobs have ended."""
        self._wait(lambda: self.slurm.ended(*job_ids), seconds, *job_ids)

    def assert_state(self, job_id: str, state: str, **others: str) -> None:
        """What SLURM says about a job."""
        shown = self.slurm.job(job_id)
        expected = {"JobState": state, **others}
        found = {name: shown.get(name) for name in expected}
        assert found == expected, self._told(job_id)

    def checkpoint(self, name: str) -> dict:
        """The last checkpoint of a run."""
        path = self.folder / "checkpoints" / name / "checkpoint.pt"
        return torch.load(path, map_location="cpu", weights_only=False)

    def _wait(self, condition: Callable[[], bool], seconds: float, *job_ids: str) -> None:
        try:
            self.slurm.wait(condition, seconds, f"jobs {', '.join(job_ids)}")
        except Unavailable as error:
            told = "\n".join(map(self._told, job_ids))
            raise AssertionError(f"{error}\n{told}") from None

    def _told(self, job_id: str) -> str:
        return f"{self.slurm.job(job_id)}\n{self.log(job_id)[-6000:]}"
