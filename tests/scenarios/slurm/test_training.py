"""Training on a real SLURM, by sbatch and by submitit, told to stop and started again."""

import pytest
import torch

from tests.scenarios.slurm.single_host import NODES

pytestmark = pytest.mark.slow


def assert_same_run(one: dict, other: dict) -> None:
    """Weights, averaged weights and optimizer to the last bit."""
    assert one["step"] == other["step"]
    for name, value in one["state_dict"].items():
        assert torch.equal(value, other["state_dict"][name]), name
    for value, others in zip(
        one["ema"]["shadow_params"], other["ema"]["shadow_params"], strict=True
    ):
        assert torch.equal(value, others)
    assert one["scheduler"]["last_epoch"] == other["scheduler"]["last_epoch"]


@pytest.fixture
def one_node(jobs):
    """Jobs go to the first node, also when they start again."""
    other = f"NodeName={NODES[1]}"
    jobs.slurm.call("scontrol", "update", other, "State=DRAIN", "Reason=test")
    yield
    jobs.slurm.call("scontrol", "update", other, "State=RESUME")


@pytest.mark.usefixtures("one_node")
def test_two_jobs_on_one_node_are_stopped_and_go_on(jobs, undisturbed):
    """Ours and submitit's; the ranks of each find their own."""
    (ours,) = jobs.submit("submit", "config.yml", "--name=srun", "--print-every=1")
    submitits = jobs.submit_itself("--identifier", "submitted")
    signals = {ours: ["--batch", "--signal=USR1"], submitits: ["--signal=USR2"]}
    jobs.when_printed(
        "step 4 of", lambda job: jobs.slurm.call("scancel", *signals[job], job), *signals
    )
    jobs.wait_until_ended(*signals)
    for job in signals:
        jobs.assert_state(job, "COMPLETED", Restarts="1", NodeList="127.0.0.1")
        assert jobs.log(job).count(" step 1 of ") == 1, "it began anew"
    assert "told to stop: saving" in jobs.log(ours) and "start 1 on" in jobs.log(ours)
    assert "Requeued job" in jobs.log(submitits)
    (submitted,) = jobs.folder.glob("checkpoints/*-submitted")
    assert_same_run(jobs.checkpoint(f"srun-{ours}"), undisturbed)
    assert_same_run(jobs.checkpoint(submitted.name), undisturbed)


def test_torchrun_on_two_nodes_is_stopped_and_goes_on(jobs, undisturbed):
    (job,) = jobs.submit(
        "submit", "config.yml", "--name=torchrun", "--torchrun", "--nodes=2", "--print-every=1",
        gpus_per_node=1,
    )  # fmt: skip
    jobs.when_printed(
        "step 4 of",
        lambda job: jobs.slurm.call("scancel", "--batch", "--signal=USR1", job),
        job,
    )
    jobs.wait_until_ended(job)
    jobs.assert_state(job, "COMPLETED", Restarts="1", NumNodes="2")
    assert_same_run(jobs.checkpoint(f"torchrun-{job}"), undisturbed)


def test_a_mistake_in_a_submitted_run_is_one_line(jobs):
    job = jobs.submit_itself("--identifier", "mistaken", "--optim.dens.p=3", ranks=1)
    jobs.wait_until_ended(job)
    jobs.assert_state(job, "FAILED", ExitCode="2:0")
    log = jobs.log(job)
    assert "error: optim.dens.p: 3" in log and "Traceback" not in log
