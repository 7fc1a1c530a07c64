"""Validation and predictions count every record once, whatever the number of ranks."""

import re

import numpy as np
import pytest
import torch
from fairchem.core.modules.loss import DDPLoss

from dens_ocp.launch.steps import Stepwise
from dens_ocp.relaxation.dealt_batches import DealtBatches
from dens_ocp.training.losses import RankLoss
from tests.lmdbs import write_s2ef
from tests.runs import make_trainer, run, small_config, write_config

RECORDS, BATCH = 5, 2  # 3 batches: two for the first of two ranks


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two epochs on two ranks; the test set is predicted with each new best checkpoint."""
    folder = tmp_path_factory.mktemp("ranks")
    write_s2ef(folder / "train", 8)
    write_s2ef(folder / "val", RECORDS, seed=3)
    settings = small_config(folder, batch_size=2, eval_batch_size=BATCH, eval_every=2)
    settings["evaluation_metrics"]["metrics"]["misc"] = ["energy_forces_within_threshold"]
    settings["dataset"]["test"] = {"src": str(folder / "val")}
    settings["task"]["prediction_dtype"] = "float32"
    path = write_config(folder / "config.yml", settings)
    done = run("train", path, "--num-gpus", "2", "--timestamp-id", "two", cwd=folder)
    return folder, path, settings, done.stderr + done.stdout


def alone(trained, tmp_path):
    """A single rank with the best checkpoint of the run."""
    folder, _, settings, _ = trained
    settings = {**settings, "dataset": {**settings["dataset"]}}
    settings["dataset"]["train"] = {**settings["dataset"]["train"], "src": None}
    trainer = make_trainer(settings, tmp_path, is_debug=False, timestamp_id="one")
    trainer.load_checkpoint(str(folder / "checkpoints" / "two" / "best_checkpoint.pt"))
    return trainer


def test_validation_in_training(trained, tmp_path):
    trainer = alone(trained, tmp_path)
    expected = {name: each["metric"] for name, each in trainer.validate(disable_tqdm=True).items()}
    best = torch.load(trained[0] / "checkpoints" / "two" / "best_checkpoint.pt", weights_only=False)
    found = {name: each["metric"] for name, each in best["val_metrics"].items()}
    assert set(found) == set(expected) > {"loss", "energy_mae", "forces_mae"}
    assert found == pytest.approx(expected, rel=1e-6)
    assert best["val_metrics"]["energy_mae"]["numel"] == RECORDS
    whole = torch.load(trained[0] / "checkpoints" / "two" / "checkpoint.pt", weights_only=False)
    assert whole["best_val_metric"] == pytest.approx(expected["forces_mae"], rel=1e-6)


def test_predictions_in_training(trained, tmp_path):
    trainer = alone(trained, tmp_path)
    trainer.predict(trainer.test_loader, results_file="predictions", disable_tqdm=True)
    with (
        np.load(trained[0] / "results" / "two" / "ocp_predictions.npz") as two,
        np.load(tmp_path / "results" / "one" / "ocp_predictions.npz") as one,
    ):
        assert len(one["ids"]) == RECORDS and sorted(one) == sorted(two)
        for name in one:
            assert np.array_equal(one[name], two[name])


def test_validate_with_a_rank_that_has_no_batch(trained, tmp_path):
    folder, path, settings, _ = trained
    done = run(
        "validate", path, "--num-gpus", "3", "--optim.eval_batch_size=3", "--dataset.train=None",
        "--dataset.test=None",
        "--checkpoint", folder / "checkpoints" / "two" / "best_checkpoint.pt", cwd=tmp_path,
    )  # fmt: skip
    (line,) = re.findall(r"(energy_mae: .*)", done.stderr + done.stdout)
    found = {name: float(value) for name, value in re.findall(r"(\w+): ([\d.-]+)", line)}
    settings["optim"]["eval_batch_size"] = 3
    expected = alone(trained, tmp_path).validate(disable_tqdm=True)
    for name, each in expected.items():
        assert found[name] == pytest.approx(each["metric"], abs=6e-5)  # as printed


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
def test_the_same_batches_for_any_number_of_ranks(world):
    dealt = [DealtBatches(5, 2, rank, world, every_rank=False) for rank in range(world)]
    batches = [batch for sampler in dealt for batch in sampler]
    assert sorted(batches) == [[0, 1], [2, 3], [4]]
    assert [len(sampler) for sampler in dealt] == [len(list(sampler)) for sampler in dealt]
    assert {sampler.most for sampler in dealt} == {max(map(len, dealt))}


def test_all_ranks_are_asked_equally_often():
    asked = []
    for rank in range(4):
        loader = torch.utils.data.DataLoader(
            range(5), batch_sampler=DealtBatches(5, 2, rank, 4, every_rank=False)
        )
        calls = []
        list(Stepwise(loader, lambda calls=calls: calls.append(1)))
        asked.append(len(calls))
    assert asked == [2, 2, 2, 2]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_of_a_rank(reduction):
    whole = DDPLoss("mse", reduction)
    prediction, target = torch.rand(3, 2), torch.rand(3, 2)
    natoms = torch.ones(3)
    alone = RankLoss.of(whole)
    assert torch.equal(alone(prediction, target, natoms), whole(prediction, target, natoms))
    assert type(whole) is DDPLoss and alone.loss_fn is whole.loss_fn
    assert alone(prediction[:0], target[:0], natoms[:0]) == 0
