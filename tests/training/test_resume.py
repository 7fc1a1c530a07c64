"""A resumed run is the uninterrupted one, to the last bit."""

import re

import pytest

from tests.runs import logged, run
from tests.training.states import checkpoint, difference

pytestmark = pytest.mark.slow


def printed(log: str) -> list[str]:
    """What was printed of steps and validations, but for the time that is left."""
    return re.findall(r"\b((?:validation at )?step \d+.*loss.*?)(?:, [^,]* left)?$", log, re.M)


def finished(life) -> str:
    assert life.end() == 0, life.log[-3000:]
    return life.log


def test_from_every_checkpoint_of_a_run(lives, config, tmp_path):
    """Weights, average, optimizer, schedule, best metric, printed means of steps and validations.
    (By the same command: ``test_kill``, ``test_signals``.)"""
    path = config(keep_checkpoints=9)
    whole = printed(finished(lives.train(path, "whole", tmp_path)))
    folder = tmp_path / "checkpoints" / "whole"
    kept = sorted(folder.glob("checkpoint.*.pt"))
    assert [file.name for file in kept] == [f"checkpoint.{step}.pt" for step in (10, 2, 4, 6, 8)]
    for file in kept:
        name = file.name.split(".")[1]
        log = finished(lives.train(path, name, tmp_path, "--checkpoint", file))
        again = printed(log)
        assert again and again == whole[-len(again) :]
        assert (
            "was missed and is done now" in log
        ) is False  # each was written again after its validation
        found = difference(checkpoint(tmp_path, "whole"), checkpoint(tmp_path, name))
        assert found is None, (name, found)


def train(config, name, ranks, *arguments, cwd):
    done = run(
        "train", config, "--timestamp-id", name, "--num-gpus", str(ranks), *arguments, cwd=cwd
    )
    return done.stdout + done.stderr


def test_with_another_number_of_ranks(config, tmp_path):
    """Three ranks go on as three to the last bit (the order of sums matters with three), and as one
    at the same epoch, of which the log tells."""
    path = config(batch_size=1, keep_checkpoints=9, checkpoint_every=3, eval_every=1000)
    train(path, "whole", 3, cwd=tmp_path)  # 4 steps an epoch
    sixth = tmp_path / "checkpoints/whole/checkpoint.6.pt"
    train(path, "again", 3, "--checkpoint", sixth, cwd=tmp_path)
    found = difference(checkpoint(tmp_path, "whole"), checkpoint(tmp_path, "again"))
    assert found is None, found
    log = train(path, "alone", 1, "--checkpoint", sixth, cwd=tmp_path)
    for words in ("ranks: 3, now 1", "steps per epoch: 4, now 12", "is step 18 of 36", "3, now 1"):
        assert words in log
    assert "step 19 of 36, epoch 1.583 of 3, " in log
    state = checkpoint(tmp_path, "alone")
    assert state["step"] == 36 and state["scheduler"]["last_epoch"] == 36
    train(path, "fresh", 1, cwd=tmp_path)
    rates, fresh = ([line["lr"] for line in logged(tmp_path, name)] for name in ("alone", "fresh"))
    assert rates == pytest.approx(fresh[18:], rel=1e-12)
