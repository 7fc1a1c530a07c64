"""Training on a real SLURM, by sbatch and by submitit, told to stop and started again."""

import torch


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


def test_two_jobs_on_one_node_are_stopped_and_go_on(jobs, undisturbed):
    submitted = [
        *jobs.submit("submit", "config.yml", "--name=srun", "--print-every=1"),
        *jobs.submit("submit", "config.yml", "--name=torchrun", "--torchrun", "--print-every=1"),
    ]
    jobs.when_printed(
        "step: 4.00e+00", lambda job: jobs.slurm.call("scancel", "--batch", "--signal=USR1", job),
        *submitted,
    )  # fmt: skip
    jobs.wait_until_ended(*submitted)
    nodes = {jobs.slurm.job(job)["NodeList"] for job in submitted}
    assert len(nodes) == 1
    for name, job in zip(("srun", "torchrun"), submitted, strict=True):
        jobs.assert_state(job, "COMPLETED", Restarts="1")
        assert_same_run(jobs.checkpoint(f"{name}-{job}"), undisturbed)
        log = jobs.log(job)
        assert "told to stop: saving" in log and "start 1 on" in log
        assert log.count("step: 1.00e+00") == 1, "it began anew"


def test_submitted_by_submitit_is_stopped_and_goes_on(jobs, undisturbed):
    job = jobs.submit_itself("--identifier", "submitted")
    jobs.when_printed(
        "step: 4.00e+00", lambda job: jobs.slurm.call("scancel", "--signal=USR2", job), job
    )
    jobs.wait_until_ended(job)
    jobs.assert_state(job, "COMPLETED", Restarts="1")
    assert "Requeued job" in jobs.log(job)
    (folder,) = jobs.folder.glob("checkpoints/*-submitted")
    assert_same_run(jobs.checkpoint(folder.name), undisturbed)


def test_a_mistake_in_a_submitted_run_is_one_line(jobs):
    job = jobs.submit_itself("--identifier", "mistaken", "--optim.dens.p=3", ranks=1)
    jobs.wait_until_ended(job)
    jobs.assert_state(job, "FAILED", ExitCode="2:0")
    log = jobs.log(job)
    assert "error: optim.dens.p: 3" in log and "Traceback" not in log
