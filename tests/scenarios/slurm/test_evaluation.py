"""``slurm/evaluate``: a job array with a task for each run, and a job that collects."""

import pytest
import yaml

from tests.lmdbs import write_is2re, write_s2ef

pytestmark = pytest.mark.slow


def test_array_and_collecting_job(jobs, undisturbed):
    folder = jobs.folder
    write_s2ef(folder / "eval" / "s2ef", 4, seed=11)
    write_is2re(folder / "eval" / "is2re", 2, seed=21)
    (folder / "evaluate.yml").write_text(
        yaml.safe_dump(
            {
                "evaluation": {
                    "s2ef": {"id": str(folder / "eval" / "s2ef")},
                    "is2re": {"id": str(folder / "eval" / "is2re")},
                },
                "task": {
                    "relaxation_steps": 2,
                    "relaxation_fmax": 0.02,
                    "relax_opt": {"maxstep": 0.05, "memory": 50, "damping": 1.0, "alpha": 70.0},
                },
                "optim": {"eval_batch_size": 2},
            }
        )
    )
    array, collecting = jobs.submit(
        "evaluate", folder / "checkpoints/local/best_checkpoint.pt", "--config-yml=evaluate.yml",
        "--out=evaluated", "--gpus=1", "--no-report",
    )  # fmt: skip
    tasks = [f"{array}_0", f"{array}_1"]
    assert jobs.slurm.job(collecting)["Dependency"].startswith("afterany:")
    jobs.wait_until_ended(*tasks, collecting)
    for job in (*tasks, collecting):
        jobs.assert_state(job, "COMPLETED", ExitCode="0:0")
    logs = [jobs.log(job) for job in tasks]
    assert "done: relax-id" in logs[0] and "done: predict-id" in logs[1]
    assert not any("waiting" in log for log in logs)  # side by side in one folder
    started, ended = (
        [jobs.slurm.job(task)[name] for task in tasks] for name in ("StartTime", "EndTime")
    )
    assert max(started) <= min(ended)
    out = folder / "evaluated"
    assert (out / "predictions" / "id.npz").is_file()
    assert (out / "relaxations" / "id" / "relaxed_positions.npz").is_file()
    assert (out / "scores.json").is_file()
