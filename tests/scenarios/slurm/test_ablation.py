"""``dens-ocp ablate --submit``: the runs as one job array, then their predictions."""

import re
import sys

import pytest
import yaml

from tests.runs import small_config, write_config, write_data

pytestmark = pytest.mark.slow


def test_array_predictions_table(jobs):
    folder = jobs.folder / "ablation"
    folder.mkdir()
    write_config(folder / "config.yml", small_config(write_data(folder / "data")))
    plan = {
        "base": "config.yml",
        "baseline": "no_dens",
        "seeds": [0],
        "variants": {"no_dens": {"set": {"optim.dens.enabled": False}}, "dens": None},
    }
    (folder / "plan.yml").write_text(yaml.safe_dump(plan, sort_keys=False))

    def ablate(*options):
        done = jobs.run(
            sys.executable, "-m", "dens_ocp.tools.cli", "ablate", "ablation/plan.yml", "--out",
            "ablation/out", "--cpu", *options,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    submit = ("--submit", "--slurm-mem", "1", "--slurm-timeout", "1")
    printed = ablate(*submit)
    tasks = re.findall(r"^(\d+_\d+): \w+-seed0$", printed, flags=re.MULTILINE)
    assert len({task.partition("_")[0] for task in tasks}) == 1 and len(tasks) == 2, printed
    jobs.wait_until_ended(*tasks)
    for task in tasks:
        jobs.assert_state(task, "COMPLETED", ExitCode="0:0")
    assert "trained, not scored" in ablate("--list")
    submitted = ablate(*submit)
    assert "submitted: " in submitted and "--collect-only" in submitted
    (line,) = (line for line in submitted.splitlines() if line.startswith("submitted: "))
    ids = [part.rpartition(": ")[2] for part in line.removeprefix("submitted: ").split(", ")]
    jobs.wait_until_ended(*ids)
    table = ablate("--collect-only")
    assert "no_dens" in table and "runs are not done" not in table
    assert (folder / "out/table.json").is_file()
