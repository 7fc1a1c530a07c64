"""Validation and training sets in which no atom is free."""

import pytest

from dens_ocp.errors import DensError
from tests.lmdbs import s2ef_records, write_lmdb
from tests.runs import make_trainer, small_config


def write(path, count, fixed, seed=0):
    """Records, those numbered in ``fixed`` without a free atom."""
    records = s2ef_records(count, seed)
    for index in fixed:
        records[index].fixed[:] = 1
    return str(write_lmdb(path, records))


def settings_of(tmp_path, train=(), val=(), **outputs):
    settings = small_config(tmp_path, max_epochs=1)
    settings["dataset"]["train"]["src"] = write(tmp_path / "train.lmdb", 4, train)
    settings["dataset"]["val"]["src"] = write(tmp_path / "val.lmdb", 5, val, seed=1)
    settings["outputs"]["forces"] |= outputs
    del settings["optim"]["load_balancing"]
    return settings


def test_the_best_checkpoint_needs_a_free_atom(tmp_path):
    with pytest.raises(
        DensError,
        match="dataset.val: none of the atoms of its 5 records is free .* "
        "evaluation_metrics.primary_metric: forces_mae cannot be computed; .*energy_mae",
    ):
        make_trainer(settings_of(tmp_path, val=range(5)), tmp_path).train()


def test_what_the_message_advises(tmp_path, caplog):
    settings = settings_of(tmp_path, val=range(5))
    settings["evaluation_metrics"]["primary_metric"] = "energy_mae"
    settings["evaluation_metrics"]["metrics"]["misc"] = ["energy_forces_within_threshold"]
    trainer = make_trainer(settings, tmp_path)
    trainer.train(disable_eval_tqdm=True)
    caplog.clear()
    metrics = trainer.validate(disable_tqdm=True)
    (said,) = [each for each in caplog.messages if "nothing to compute" in each]
    assert said.startswith(
        "dataset.val: forces_mae, forces_cosine_similarity: there is nothing to compute them from"
    )
    assert {"energy_mae", "energy_forces_within_threshold"} < set(metrics)
    assert "forces_mae" not in metrics
    assert metrics["energy_forces_within_threshold"]["numel"] == 5

    settings = settings_of(tmp_path / "all", val=range(5), eval_on_free_atoms=False)
    trainer = make_trainer(settings, tmp_path / "all")
    trainer.train(disable_eval_tqdm=True)
    atoms = sum(record.natoms for record in s2ef_records(5, 1))
    assert trainer.validate(disable_tqdm=True)["forces_mae"]["numel"] == 3 * atoms


@pytest.mark.parametrize("metric", ["mae", "cosine_similarity", "energy_forces_within_threshold"])
def test_batches_without_a_free_atom_beside_others(tmp_path, metric):
    """Numbers do not depend on what is in one batch."""
    settings = settings_of(tmp_path, val=[0, 1, 3])
    settings["evaluation_metrics"]["metrics"]["forces"] = ["mae", metric]
    found = []
    for size in (1, 2, 5):
        settings["optim"]["eval_batch_size"] = size
        metrics = make_trainer(settings, tmp_path).validate(disable_tqdm=True)
        found.append({name: (each["metric"], each["numel"]) for name, each in metrics.items()
                      if name != "loss"})  # fmt: skip
    for other in found[1:]:
        assert set(other) == set(found[0]) and len(other) > 1
        for name, (value, numel) in other.items():
            # edge frames differ with the batch
            assert value == pytest.approx(found[0][name][0], abs=1e-3)
            assert numel == found[0][name][1]


def test_training_on_free_atoms_needs_one(tmp_path):
    with pytest.raises(DensError, match="dataset.train: none of the atoms of its 4 records"):
        make_trainer(settings_of(tmp_path, train=range(4)), tmp_path).train()
    for settings in (
        settings_of(tmp_path, train=range(4), train_on_free_atoms=False),
        settings_of(tmp_path, train=range(3)),
    ):
        trainer = make_trainer(settings, tmp_path)
        trainer.train(disable_eval_tqdm=True)
        assert trainer.step == 2
