"""``task.relax_opt`` and its mistakes; how batches are dealt to ranks."""

from pathlib import Path

import pytest

from dens_ocp.errors import DensError
from dens_ocp.relaxation import relaxation_options
from dens_ocp.relaxation.dealt_batches import DealtBatches, WaitingLoader
from tests.relaxation import relaxations
from tests.relaxation.relaxations import OURS, STOCK


@pytest.mark.parametrize("trainer", [STOCK, OURS])
def test_the_name_of_published_configs(systems, tmp_path, trainer):
    settings = relaxations.config(systems, tmp_path / "t", 5, relaxation_steps=1)
    settings["task"]["relax_opt"]["name"] = "lbfgs"
    if trainer == STOCK:
        with pytest.raises(TypeError, match="unexpected keyword argument 'name'"):
            relaxations.relax(settings, tmp_path, trainer)
        return
    used, metrics = relaxations.relax(settings, tmp_path, trainer)
    assert metrics["is2re_energy_mae"] > 0
    # nothing of this is left in the config, which goes into checkpoints
    assert used.config["task"] == settings["task"]


@pytest.mark.parametrize("trainer", [STOCK, OURS])
def test_no_relax_opt(systems, tmp_path, trainer):
    settings = relaxations.config(systems, None, 5, relaxation_steps=1, save_full_traj=True)
    del settings["task"]["relax_opt"]
    if trainer == STOCK:
        with pytest.raises(KeyError, match="relax_opt"):
            relaxations.relax(settings, tmp_path, trainer)
        return
    relaxations.relax(settings, tmp_path)
    assert len(relaxations.positions(tmp_path)) == 5


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ({"relax_opt": {"name": "lbfg"}}, "relax_opt.name: 'lbfg' .* did you mean 'lbfgs'"),
        ({"relax_opt": {"name": "fire"}}, "relax_opt.name: 'fire' is not known; .* name: lbfgs"),
        ({"relax_opt": {"max_step": 1}}, "relax_opt.max_step, did you mean 'maxstep'"),
        ({"relax_opt": {"fmax": 1}}, r"unknown option task.relax_opt.fmax \(known: .*maxstep"),
        ({"relax_opt": {"maxstep": "small"}}, "maxstep: 'small' is not a number"),
        ({"relax_opt": {"alpha": 0}}, "alpha: 0 must be greater than 0"),
        ({"relax_opt": {"memory": 2.5}}, "memory: 2.5 is not a whole number"),
        ({"relax_opt": "lbfgs"}, "relax_opt: 'lbfgs' is not a block of options"),
        ({"relaxation_steps": -1}, "relaxation_steps: -1 must be greater than or equal to 0"),
        ({"relaxation_fmax": "fast"}, "relaxation_fmax: 'fast' is not a number"),
    ],
)
def test_mistakes(task, words):
    with pytest.raises(DensError, match=words):
        relaxation_options.checked(task)


def test_mistakes_are_found_at_the_start(systems, tmp_path):
    settings = relaxations.config(systems, None)
    settings["task"]["relax_opt"]["maxstp"] = 0.1
    with pytest.raises(DensError, match="did you mean 'maxstep'"):
        relaxations.trainer_of(settings, tmp_path)


def test_defaults_and_paths():
    task = {"relax_opt": {"name": "LBFGS", "memory": 50, "traj_dir": "a/b"}, "write_pos": True}
    assert relaxation_options.checked(task) == {
        "relax_opt": {"memory": 50, "traj_dir": Path("a/b")}, "write_pos": True,
        "relaxation_steps": 300, "relaxation_fmax": 0.02,
    }  # fmt: skip
    assert task["relax_opt"]["traj_dir"] == "a/b"
    assert relaxation_options.checked({"relax_opt": {"traj_dir": None}})["relax_opt"] == {}


def test_no_data_set_of_relaxations(systems, tmp_path):
    settings = relaxations.config(systems, None)
    settings["dataset"]["relax"]["src"] = None
    with pytest.raises(DensError, match="dataset.relax.src is missing"):
        relaxations.relax(settings, tmp_path)


@pytest.mark.parametrize("size", [1, 2, 5, 12, 13])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_are_dealt_out(size, world):
    if size < world:
        with pytest.raises(DensError, match=f"{size} systems for {world} ranks"):
            DealtBatches(size, 4, 0, world)
        return
    ranks = [DealtBatches(size, 4, rank, world) for rank in range(world)]
    dealt = [list(rank) for rank in ranks]
    assert [len(rank) for rank in ranks] == [len(batches) for batches in dealt]
    assert all(batches for batches in dealt)
    assert sorted(i for batches in dealt for batch in batches for i in batch) == list(range(size))
    if -(-size // 4) >= world:  # the batches of one rank
        alone = list(DealtBatches(size, 4))
        assert sorted(batch for batches in dealt for batch in batches) == alone
        assert max(map(len, alone)) <= 4


def test_a_limit_of_batches():
    assert list(WaitingLoader([1, 2, 3], 2)) == [1, 2] and len(WaitingLoader([1, 2, 3], 2)) == 2
    assert list(WaitingLoader([1, 2, 3])) == [1, 2, 3] and len(WaitingLoader([1], 5)) == 1
