"""A failure on rank 0 is everyone's: nobody waits for a rank that does not come."""

import threading
from pathlib import Path

import pytest

from dens_ocp.errors import DensError
from dens_ocp.launch.agreement import MasterFailed, on_master
from dens_ocp.relaxation import trajectories
from tests.ranks import on_ranks
from tests.runs import make_trainer, small_config, write_data


def outcome(action) -> str:
    try:
        return repr(action())
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def raising(error):
    def action():
        raise error

    return action


def outcomes(actions) -> list[str]:
    return [outcome(lambda each=each: on_master(each)) for each in actions]


def test_on_master():
    actions = [
        lambda: 3,
        raising(DensError("a mistake")),
        raising(OSError(28, "No space left on device")),
        raising(KeyError("y")),
        raising(SystemExit(3)),
        threading.Lock,  # cannot be sent
        lambda: 4,
    ]
    zero, one = on_ranks(2, outcomes, actions, seconds=30)
    assert zero[:2] == one[:2] == ["3", "DensError: a mistake"] and zero[-1] == one[-1] == "4"
    for mine, theirs in zip(zero[2:-1], one[2:-1], strict=True):
        assert theirs == f"MasterFailed: rank 0 failed with {mine}"
    assert zero[2] == "OSError: [Errno 28] No space left on device"
    assert [each.split(":")[0] for each in zero[3:-1]] == ["KeyError", "SystemExit", "TypeError"]


def test_alone():
    assert on_master(lambda: 3) == 3
    with pytest.raises(KeyError):
        on_master(raising(KeyError("y")))
    assert issubclass(MasterFailed, RuntimeError)


def built(config, run_dir) -> str:
    return outcome(lambda: make_trainer(config, run_dir, is_debug=False, timestamp_id="run"))


def relaxed(config, run_dir) -> str:
    def claim(*args):
        raise OSError(13, "Permission denied")

    trajectories.claim = claim
    trainer = make_trainer(config, run_dir)
    return outcome(trainer.run_relaxations)


@pytest.mark.parametrize("what", ["element_references", "normalizer"])
def test_references_and_normalizers_that_rank_0_cannot_read(tmp_path, what):
    config = small_config(write_data(tmp_path))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no such thing")
    config["dataset"]["train"]["transforms"][what] = {"energy": {"file": str(broken)}}
    config["optim"]["dens"] = {"enabled": False}
    zero, one = on_ranks(2, built, config, tmp_path, seconds=60)
    assert "Error: " in zero and one == f"MasterFailed: rank 0 failed with {zero}"


def test_a_folder_of_trajectories_that_rank_0_cannot_use(tmp_path: Path):
    data = write_data(tmp_path)
    config = small_config(data)
    config["dataset"]["relax"] = {"src": str(data / "relax")}
    config["task"] = {"relax_opt": {"traj_dir": str(tmp_path / "trajectories")}}
    zero, one = on_ranks(2, relaxed, config, tmp_path, seconds=60)
    assert zero == "PermissionError: [Errno 13] Permission denied"
    assert one == f"MasterFailed: rank 0 failed with {zero}"
