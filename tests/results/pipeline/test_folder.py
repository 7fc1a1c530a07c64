"""The evaluation's folder: results of different things are not mixed, one at a time works in it."""

import subprocess
import sys

import pytest

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder, sha256


def description(sha="a", steps=5):
    return {
        "checkpoint": "c.pt",
        "checkpoint_sha256": sha,
        "jobs": {"relax-id": {"task": {"relaxation_steps": steps}}},
    }


def test_results_of_something_else_are_not_mixed_in(tmp_path):
    folder = EvaluationFolder(tmp_path)
    folder.describe(description(), lambda name: False)
    folder.describe(description(steps=6), lambda name: False)  # nothing there yet
    folder.describe(description(steps=6), lambda name: True)
    with pytest.raises(DensError, match="another checkpoint"):
        folder.describe(description("b", 6), lambda name: True)
    with pytest.raises(DensError, match=r"relax-id .*task.relaxation_steps: 6 before, 7 now"):
        folder.describe(description(steps=7), lambda name: True)


def test_settings_of_other_runs_are_kept(tmp_path):
    folder = EvaluationFolder(tmp_path)
    folder.describe(description(), lambda name: False)
    other = {**description(), "jobs": {"predict-id": {}}}
    folder.describe(other, lambda name: name == "relax-id")
    assert '"relax-id"' in folder.description_file.read_text()


def test_the_lock_is_held_by_a_process_that_was_left(tmp_path):
    folder = EvaluationFolder(tmp_path)
    said = []
    with folder.locked(said.append) as locks:
        left = subprocess.Popen(
            [sys.executable, "-c", "input()"], pass_fds=locks, stdin=subprocess.PIPE
        )
        again = f"""
from pathlib import Path
from dens_ocp.results.pipeline.folder import EvaluationFolder
with EvaluationFolder(Path({str(tmp_path)!r})).locked(lambda line: print(line, flush=True)):
    print("mine", flush=True)
"""
    waiting = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", again], stdout=subprocess.PIPE, text=True
    )
    assert waiting.stdout.readline().startswith("waiting: ")
    left.communicate(b"\n")
    assert waiting.stdout.readline() == "mine\n"
    assert waiting.wait() == 0 and said == []


def test_runs_have_locks_of_their_own(tmp_path):
    folder = EvaluationFolder(tmp_path)
    program = f"""
import sys
from pathlib import Path
from dens_ocp.results.pipeline.folder import EvaluationFolder
folder = EvaluationFolder(Path({str(tmp_path)!r}))
with folder.locked(lambda line: print(line, flush=True), sys.argv[1:]):
    print("mine", flush=True)
"""

    def first_line(*runs: str) -> str:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", program, *runs],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with process:
            line = process.stdout.readline()
            process.kill()
        return line

    with folder.locked(print, ["predict-id"]):
        assert first_line("relax-id") == "mine\n"
        assert first_line("predict-id").startswith("waiting: ")
        assert first_line().startswith("waiting: ")  # a whole evaluation
    with folder.locked(print):
        assert first_line("relax-id").startswith("waiting: ")


def test_sha256(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256(tmp_path / "x").startswith("ba7816bf")
