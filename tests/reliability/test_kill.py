"""kill -9 at random moments of a run that writes a checkpoint at each step."""

import random
import time

import pytest

from tests.reliability.states import checkpoint, difference

KILLS = 20


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_is_the_undisturbed_one(lives, config, tmp_path, capsys):
    path = config(max_epochs=6, checkpoint_every=1, eval_every=4)
    started = time.monotonic()
    whole = lives.train(path, "whole", tmp_path)
    assert whole.end() == 0, whole.log[-3000:]
    lifetime = time.monotonic() - started
    seed = random.SystemRandom().randrange(10**6)
    draw = random.Random(seed)
    reached, unfinished = [], 0
    for _ in range(KILLS):
        life = lives.train(path, "killed", tmp_path)
        time.sleep(draw.uniform(0.0, 0.5 * lifetime))
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
