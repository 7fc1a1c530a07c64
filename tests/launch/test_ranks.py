"""Who a process is, from what torchrun or srun set; where the ranks meet."""

import copy
import os

import pytest

from dens_ocp.errors import DensError
from dens_ocp.launch import rank_process, ranks, slurm

TORCHRUN = {
    "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "29500",
}  # fmt: skip
BATCH_SCRIPT = {
    "SLURM_JOB_ID": "700", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
}  # fmt: skip
SRUN = {
    **BATCH_SCRIPT, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "n[1-2]", "MASTER_ADDR": "n1",
}  # fmt: skip


@pytest.fixture
def config(monkeypatch) -> dict:
    """fairchem's, as far as it matters here; the environment is restored afterwards."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    return {
        "world_size": 1, "submit": True, "cpu": True, "distributed_backend": "nccl",
        "mode": "train", "checkpoint": None, "timestamp_id": "run", "run_dir": ".",
    }  # fmt: skip


def test_nothing_launched_this_process():
    assert ranks.of_environment({}) is None
    assert ranks.of_environment(BATCH_SCRIPT) is None  # a task of its own, whatever the job has
    assert ranks.of_environment({**SRUN, "SLURM_STEP_NUM_TASKS": "1"}) is None
    # set by a container's platform for each node
    assert ranks.of_environment({"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a"}) is None


def test_torchrun():
    assert ranks.of_environment(TORCHRUN) == ranks.Rank(3, 4, 1, "a", 29500)
    # torchrun within a job step
    assert ranks.of_environment({**SRUN, **TORCHRUN}) == ranks.Rank(3, 4, 1, "a", 29500)


def test_srun():
    rank = ranks.of_environment(SRUN)
    assert (rank.rank, rank.world_size, rank.local_rank, rank.address) == (5, 8, 1, "n1")
    assert rank.port == ranks.port_of_step(SRUN)
    assert ranks.of_environment({**SRUN, "MASTER_PORT": "1234"}).port == 1234


@pytest.mark.parametrize("name", ["MASTER_ADDR", "MASTER_PORT"])
def test_a_variable_is_missing(name):
    environ = {key: value for key, value in TORCHRUN.items() if key != name}
    with pytest.raises(DensError, match=f"{name} is not set"):
        ranks.of_environment(environ)
    with pytest.raises(DensError, match=f"{name}.*(is not a number|is not set)"):
        ranks.of_environment({**TORCHRUN, name: "x" if name == "MASTER_PORT" else ""})


def test_hosts_cannot_be_found(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DensError, match="set MASTER_ADDR"):
        ranks.of_environment({**SRUN, "MASTER_ADDR": ""})


def test_ports_of_neighbours_differ():
    ports = [
        ranks.port_of_step(
            {"SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step), "SLURM_RESTART_COUNT": str(n)}
        )
        for job in range(99_000, 99_800)
        for step in range(5)
        for n in range(3)
    ]
    assert len(set(ports)) == len(ports)
    assert 20_000 <= min(ports) and max(ports) < 32_768  # Linux gives out those above


def test_joining(config):
    before = copy.deepcopy(config)
    joined = ranks.joining(config, ranks.Rank(3, 4, 1, "a", 29500))
    assert config == before
    assert (joined["world_size"], joined["submit"]) == (4, False)
    assert {name: os.environ[name] for name in TORCHRUN} == TORCHRUN
    with pytest.raises(DensError, match="is 8, but srun or torchrun started 4"):
        ranks.joining({**config, "world_size": 8}, ranks.Rank(3, 4, 1, "a", 29500))


def test_a_job_that_is_started_again_goes_on_with_its_own(config, tmp_path):
    config |= {"checkpoint": "pretrained.pt", "run_dir": str(tmp_path)}
    (tmp_path / "checkpoints" / "run").mkdir(parents=True)
    os.environ["SLURM_RESTART_COUNT"] = "1"
    assert rank_process.going_on(config) == config  # none was written yet
    (tmp_path / "checkpoints" / "run" / "checkpoint.pt").touch()
    assert rank_process.going_on(config)["checkpoint"] is None
    assert rank_process.going_on({**config, "mode": "predict"})["checkpoint"] == "pretrained.pt"
    os.environ["SLURM_RESTART_COUNT"] = "0"
    assert rank_process.going_on(config) == config


def test_submitting_where_there_is_no_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DensError, match="srun is not on the PATH"):
        slurm.ClusterExecutor(tmp_path)
