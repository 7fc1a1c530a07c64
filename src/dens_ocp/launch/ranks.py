"""Which rank this process is, and where the ranks meet, from what launched it.

``srun`` and ``torchrun`` start the processes of a run themselves. fairchem-core 1.10.0 knows only
processes that it has started (locally or by submitit): any other one becomes rank 0 of a run of its
own (``_cli.py:129``). Its submitted processes meet at one fixed port, on NCCL, and need a GPU
(``common/distutils.py:23``, ``:88``, ``:91``). Here all of them join by the variables that torch
reads: RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT.
"""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch

from dens_ocp.errors import DensError

_FIRST_PORT, _PORTS = 20_000, 12_000  # below the ports that Linux gives to outgoing connections
_PORTS_OF_A_JOB = 15


@dataclass(frozen=True)
class Rank:
    """One process of a run.

    Attributes:
        rank, world_size: of all processes.
        local_rank: on its node; the number of its GPU.
        address, port: where rank 0 listens.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int

    def announce(self, environ: MutableMapping[str, str]) -> None:
        """Write the variables that torch reads."""
        environ["RANK"], environ["WORLD_SIZE"] = str(self.rank), str(self.world_size)
        environ["LOCAL_RANK"] = str(self.local_rank)
        environ["MASTER_ADDR"], environ["MASTER_PORT"] = self.address, str(self.port)


def of_environment(environ: Mapping[str, str]) -> Rank | None:
    """The rank that ``torchrun`` or ``srun`` gave to this process.

    torchrun (or whoever sets the same variables): RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR,
    MASTER_PORT. srun: the step's variables, if it has more than one task; those of the job alone
    do not count, since a batch script has them too. MASTER_ADDR and MASTER_PORT go before what
    SLURM says.

    Returns:
        The rank; None if nothing but this process was launched.

    Raises:
        DensError: a variable is missing or not a number.
    """
    if all(name in environ for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")):
        return Rank(
            _number(environ, "RANK"),
            _number(environ, "WORLD_SIZE"),
            _number(environ, "LOCAL_RANK"),
            _word(environ, "MASTER_ADDR"),
            _number(environ, "MASTER_PORT"),
        )
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1 and "SLURM_PROCID" in environ:
        port = environ.get("MASTER_PORT") and _number(environ, "MASTER_PORT")
        return Rank(
            _number(environ, "SLURM_PROCID"),
            _number(environ, "SLURM_STEP_NUM_TASKS"),
            _number(environ, "SLURM_LOCALID"),
            environ.get("MASTER_ADDR") or _first_host(_word(environ, "SLURM_STEP_NODELIST")),
            port or port_of_step(environ),
        )
    return None


def port_of_step(environ: Mapping[str, str]) -> int:
    """A port that the tasks of a SLURM step agree on and neighbours on a node do not share.

    800 consecutive jobs have different ones; so have five steps of a job, and three consecutive
    starts of a requeued one (its first port may still be in use).
    """
    job = _number(environ, "SLURM_JOB_ID")
    step = int(environ.get("SLURM_STEP_ID", 0)) % 5
    start = int(environ.get("SLURM_RESTART_COUNT", 0)) % 3
    return _FIRST_PORT + (job * _PORTS_OF_A_JOB + step * 3 + start) % _PORTS


def joining(config: dict[str, Any], rank: Rank) -> dict[str, Any]:
    """fairchem's config for a process that joins by torch's variables, which are set.

    ``submit`` is off: its branch of fairchem's ``distutils.setup`` is the one that needs a GPU.
    A process that sees a single GPU (``--gpus-per-task=1``) uses that one.

    Args:
        config: of ``build_config``; not changed.
        rank: this process.

    Raises:
        DensError: ``--num-nodes`` times ``--num-gpus`` is given and is not the number of processes.
    """
    asked = config["world_size"]
    if asked not in (1, rank.world_size):
        raise DensError(
            f"--num-nodes times --num-gpus is {asked}, but srun or torchrun started "
            f"{rank.world_size} processes; leave both options out, or start {asked} processes"
        )
    if torch.cuda.is_available() and not config["cpu"] and torch.cuda.device_count() == 1:
        rank = Rank(rank.rank, rank.world_size, 0, rank.address, rank.port)
    rank.announce(os.environ)
    joined = copy.deepcopy(config)
    joined["world_size"], joined["submit"] = rank.world_size, False
    if not torch.cuda.is_available():
        joined["distributed_backend"] = "gloo"
    return joined


def _first_host(nodes: str) -> str:
    try:
        shown = subprocess.run(
            ["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise DensError(
            f"scontrol show hostnames {nodes} failed ({error}), so the ranks cannot find each "
            "other; set MASTER_ADDR to the host name of rank 0"
        ) from None
    return shown.stdout.split()[0]


def _word(environ: Mapping[str, str], name: str) -> str:
    if not environ.get(name):
        raise DensError(
            f"{name} is not set, but other variables of a distributed run are (RANK, WORLD_SIZE or "
            "SLURM_STEP_NUM_TASKS); start the ranks with srun or torchrun, or unset them"
        )
    return environ[name]


def _number(environ: Mapping[str, str], name: str) -> int:
    word = _word(environ, name)
    if not word.isdigit():
        raise DensError(
            f"{name}: {word!r} is not a number; the launcher (srun or torchrun) must set it"
        )
    return int(word)
