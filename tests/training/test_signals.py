"""SIGTERM, SIGINT, SIGUSR1, SIGUSR2: the step is finished, saved, and the run ends with 0."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.runs import environment, run
from tests.training.states import checkpoint, difference

pytestmark = pytest.mark.slow
SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT]


@pytest.fixture
def long(config):
    return config(max_epochs=6, eval_every=5, checkpoint_every=1000)


def test_one_process(lives, long, tmp_path):
    """Each signal once, at a step of its own, and one during the start."""
    whole = lives.train(long, "whole", tmp_path)
    assert whole.end() == 0
    stopped = []
    for number, moment in zip(
        [*SIGNALS, signal.SIGTERM, signal.SIGINT], (0.0, 0.1, 0.2, 0.3, -1, -1), strict=True
    ):
        life = lives.train(long, "parts", tmp_path, "--print-every", "1")
        if moment < 0:
            life.wait_for("checkpoint_dir")
        else:
            life.wait_for("left")
            time.sleep(moment)
        life.kill(number)
        assert life.end() == 0, life.log[-3000:]
        assert "Traceback" not in life.log
        if "stopped after step 0" not in life.log:
            stopped.append(checkpoint(tmp_path, "parts")["step"])
            assert f"stopped after step {stopped[-1]} of 24" in life.log
    assert stopped == sorted(stopped) and 0 < stopped[0] < stopped[3] < 24, stopped
    last = lives.train(long, "parts", tmp_path)
    assert last.end() == 0
    found = difference(checkpoint(tmp_path, "whole"), checkpoint(tmp_path, "parts"))
    assert found is None, found


def test_in_a_validation(lives, config, tmp_path):
    """It is broken off, the trained weights are saved, and it is made up for."""
    path = config(max_epochs=2, eval_every=5, checkpoint_every=1000, eval_batch_size=1)
    whole = lives.train(path, "whole", tmp_path)
    assert whole.end() == 0
    life = lives.train(path, "parts", tmp_path)
    life.wait_for("Evaluating on val")
    life.kill(signal.SIGUSR1)
    assert life.end() == 0, life.log[-3000:]
    assert "stopped after step 5 of 8" in life.log
    state = checkpoint(tmp_path, "parts")
    assert state["resume"]["validated_step"] != 5
    last = lives.train(path, "parts", tmp_path)
    assert last.end() == 0
    assert "The validation of step 5 was missed and is done now" in last.log
    for file in ("checkpoint.pt", "best_checkpoint.pt"):
        found = difference(checkpoint(tmp_path, "whole", file), checkpoint(tmp_path, "parts", file))
        assert found is None, (file, found)


@pytest.mark.parametrize("number", SIGNALS)
def test_data_workers_do_not_die_of_it(lives, config, tmp_path, number):
    path = config(max_epochs=50, eval_every=1000, checkpoint_every=1000, num_workers=2)
    life = lives.train(path, "workers", tmp_path)
    life.wait_for("step 3 of")
    life.kill_all(number)
    assert life.end() == 0, life.log[-3000:]
    assert "Traceback" not in life.log and "stopped after step" in life.log
    with pytest.raises(ProcessLookupError):
        life.kill_all(0)  # no worker is left


@pytest.mark.parametrize("to", ["parent", "all", "Ctrl-C"])
def test_two_ranks(config, tmp_path, to):
    """To the process that started the ranks, as a user does it, and to all processes, as SLURM and
    a terminal do it."""
    path = config(max_epochs=6, batch_size=1, eval_every=1000, checkpoint_every=1000)
    command = [
        sys.executable, "-m", "dens_ocp.tools.cli", "main", "--mode", "train", "--config-yml",
        str(path), "--cpu", "--print-every", "1", "--run-dir", str(tmp_path), "--num-gpus", "2",
        "--timestamp-id", "parts",
    ]  # fmt: skip
    log = tmp_path / "log"
    with open(log, "w") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL, stdout=out,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    end = time.monotonic() + 300
    while "step 3 of" not in log.read_text() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    if to == "parent":
        process.send_signal(signal.SIGUSR1)
    else:
        os.killpg(process.pid, signal.SIGINT if to == "Ctrl-C" else signal.SIGTERM)
    assert process.wait(120) == 0, log.read_text()[-4000:]
    text = log.read_text()
    assert "Traceback" not in text and "death signal" not in text
    step = checkpoint(tmp_path, "parts")["step"]
    assert f"stopped after step {step} of 36" in text and 3 <= step < 36
    if to == "parent":
        run("train", path, "--timestamp-id", "parts", "--num-gpus", "2", cwd=tmp_path)
        run("train", path, "--timestamp-id", "whole", "--num-gpus", "2", cwd=tmp_path)
        found = difference(checkpoint(tmp_path, "whole"), checkpoint(tmp_path, "parts"))
        assert found is None, found


AT_ONCE = """
import multiprocessing, os, signal, sys, time
from dens_ocp.launch import signals

def rank():
    signals.listen()
    print("listening", flush=True)
    while True:  # a step that does not end
        time.sleep(0.05)

def run():
    if sys.argv[1] == "alone":
        rank()
    with signals.passed_on():
        ranks = [multiprocessing.get_context("fork").Process(target=rank) for _ in range(2)]
        for each in ranks:
            each.start()
        codes = []
        for each in ranks:
            each.join()
            codes.append(each.exitcode)
    print("exit codes", codes, signals.was_interrupted_again(), flush=True)

run()
"""


@pytest.mark.parametrize("who", ["alone", "parent of two ranks"])
def test_the_second_ctrl_c_ends_it_at_once(tmp_path, who):
    process = subprocess.Popen(
        [sys.executable, "-c", AT_ONCE, who], env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    for _ in range(1 if who == "alone" else 2):
        assert process.stdout.readline() == "listening\n"
    for _ in range(3):  # within a moment they count as one
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    time.sleep(1.8)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert err.count("Ctrl-C again: at once") >= 1 and "Traceback" not in err
    if who == "alone":
        assert process.returncode == -signal.SIGINT
    else:
        assert process.returncode == 0 and out == f"exit codes {[-signal.SIGKILL] * 2} True\n"


def test_an_ignored_ctrl_c_stays_ignored():
    """As a shell starts what runs in the background."""
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from dens_ocp.launch import signals; signals.listen()\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "assert signals.received() == 0 and signal.getsignal(signal.SIGINT) is signal.SIG_IGN"
    )
    subprocess.run([sys.executable, "-c", code], env=environment(), check=True)
