"""kill -9 at random moments of a run that writes a checkpoint at each step."""

import random
import time

import pytest

from tests.training.states import checkpoint, difference

KILLS = 20
EPOCHS = 15


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_is_the_undisturbed_one(lives, config, tmp_path, capsys):
    path = config(max_epochs=EPOCHS, checkpoint_every=1, eval_every=4)
    whole = lives.train(path, "whole", tmp_path)
    whole.wait_for("INFO")
    started = time.monotonic()
    whole.wait_for("step 3 of")
    first_steps = time.monotonic()
    assert whole.end() == 0, whole.log[-3000:]
    start = first_steps - started
    step = (time.monotonic() - first_steps) / (4 * EPOCHS - 3)
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    reached, unfinished = [], 0
    for number in range(KILLS):
        life = lives.train(path, "killed", tmp_path)
        # every second one during the start, the others in the first steps
        time.sleep(draw.uniform(0, start) if number % 2 else start + draw.uniform(0, 5 * step))
        life.kill()
        code = life.end()
        assert code in (-9, 0), life.log[-3000:]
        folder = tmp_path / "checkpoints" / "killed"
        unfinished += len(list(folder.glob(".*.unfinished")))
        if (folder / "checkpoint.pt").exists():
            reached.append(checkpoint(tmp_path, "killed")["step"])
    with capsys.disabled():
        print(f"\nseed {seed}: steps {reached} after kills; {unfinished} while writing")
    assert reached == sorted(reached), "a checkpoint was lost"
    last = lives.train(path, "killed", tmp_path)
    assert last.end() == 0, last.log[-3000:]
    for file in ("checkpoint.pt", "best_checkpoint.pt"):
        found = difference(
            checkpoint(tmp_path, "whole", file), checkpoint(tmp_path, "killed", file)
        )
        assert found is None, (file, found)
    assert not list(folder.glob(".*"))
