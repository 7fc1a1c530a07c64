"""A run's folder: refused at the start if it cannot be written or is in use."""

import signal
import subprocess

import pytest

from dens_ocp.checkpoints import run_folder
from dens_ocp.errors import DensError

pytestmark = pytest.mark.slow


@pytest.fixture
def read_only(tmp_path):
    """A folder that root cannot write either."""
    folder = tmp_path / "read-only"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        folder.chmod(0o500)  # not root, then
        yield folder
        folder.chmod(0o700)
        return
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_read_only(lives, config, tmp_path, read_only):
    life = lives.train(config(), "run", tmp_path, "--run-dir", read_only)
    assert life.end() == 2
    assert life.log.count("error:") == 1 and "Traceback" not in life.log
    assert f"--run-dir: {read_only}/checkpoints cannot be written (" in life.log


def test_a_file_in_the_place_of_the_folder(lives, config, tmp_path):
    (tmp_path / "checkpoints").write_text("")
    life = lives.train(config(), "run", tmp_path)
    assert life.end() == 2
    assert "cannot be written" in life.log and "Traceback" not in life.log


def test_two_runs_in_one_folder(lives, config, tmp_path):
    path = config(max_epochs=50, num_workers=1)
    first = lives.train(path, "same", tmp_path)
    first.wait_for("step 3 of")
    second = lives.train(path, "same", tmp_path)
    assert second.end() == 2
    assert f"in use by process {first.pid} on " in second.log and "--timestamp-id" in second.log
    assert "Traceback" not in second.log
    first.kill(signal.SIGKILL)
    assert first.end() == -9
    # at once, while the first one's data worker may still live
    third = lives.train(path, "same", tmp_path)
    third.wait_for("left")
    third.kill(signal.SIGTERM)
    assert third.end() == 0, third.log[-3000:]


def test_the_lock_ends_with_its_file(tmp_path):
    lock = run_folder.claim(tmp_path)
    assert "process" in (tmp_path / run_folder.LOCK).read_text()
    lock.close()
    run_folder.claim(tmp_path).close()


@pytest.mark.parametrize("keep", [0, -1, "two", 1.5])
def test_keep_checkpoints_is_a_number(lives, config, tmp_path, keep):
    life = lives.train(config(keep_checkpoints=keep), "run", tmp_path)
    assert life.end() == 2
    assert "optim.keep_checkpoints" in life.log and "Traceback" not in life.log


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DensError, match="cannot be written"):
        run_folder.check_writable(tmp_path / "file")
