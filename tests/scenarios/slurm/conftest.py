"""One SLURM for the tests of this folder, and one folder of runs that they share.

Each process of pytest-xdist has its own; they do not meet.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.runs import run, small_config, write_config, write_data
from tests.scenarios.slurm.jobs import Jobs
from tests.scenarios.slurm.single_host import SingleHostSlurm, Unavailable


@pytest.fixture(scope="session")
def slurm():
    # not pytest's folder: munge wants one that others may enter, with a short path
    folder = Path(tempfile.mkdtemp(prefix="dens-slurm-"))
    folder.chmod(0o755)
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    # ports of ranks come from the ids of jobs
    host = SingleHostSlurm(folder, first_job=1 + 100 * worker)
    try:
        try:
            host.up()
        except Unavailable as error:
            pytest.skip(f"NO TEST ON SLURM: it cannot be brought up here. {error}")
        yield host
    finally:
        host.down()
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def jobs(slurm, tmp_path_factory) -> Jobs:
    """A folder with data, configs and cluster settings, to submit from."""
    folder = tmp_path_factory.mktemp("slurm")
    config = small_config(write_data(folder / "data"), max_epochs=20, eval_every=100)
    config["hide_eval_progressbar"] = True
    write_config(folder / "config.yml", config)
    return Jobs(slurm, folder)


@pytest.fixture(scope="session")
def undisturbed(jobs) -> dict:
    """The checkpoint of a run of two ranks without SLURM, called ``local``."""
    run("train", jobs.folder / "config.yml", "--num-gpus", "2", "--timestamp-id", "local",
        cwd=jobs.folder)  # fmt: skip
    return jobs.checkpoint("local")
