"""A resumed run is the uninterrupted one, to the last bit."""

import re

import pytest

from tests.reliability.states import checkpoint, difference

pytestmark = pytest.mark.slow


def printed(log: str) -> list[str]:
    """What was printed of steps and validations."""
    return re.findall(r"(?:loss|energy_mae|forces_mae).*(?:step|epoch): \S+", log)


def finished(life) -> str:
    assert life.end() == 0, life.log[-3000:]
    return life.log


def test_killed_twice_and_by_the_checkpoint_option(lives, config, tmp_path):
    """From every kept checkpoint: weights, average, optimizer, schedule, best metric, printed means."""
    path = config(keep_checkpoints=9)
    whole = printed(finished(lives.train(path, "whole", tmp_path)))
    folder = tmp_path / "checkpoints" / "whole"
    kept = sorted(folder.glob("checkpoint.*.pt"))
    assert [file.name for file in kept] == [f"checkpoint.{step}.pt" for step in (10, 2, 4, 6, 8)]
    for file in kept:
        name = file.name.split(".")[1]
        log = finished(lives.train(path, name, tmp_path, "--checkpoint", file))
        again = printed(log)
        assert again and again == whole[-len(again):]
        assert ("made up for" in log) is False  # each was written again after its validation
        found = difference(checkpoint(tmp_path, "whole"), checkpoint(tmp_path, name))
        assert found is None, (name, found)
