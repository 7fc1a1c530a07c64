"""NaN and infinite results: said, named, and an error where nothing is usable."""

import copy
import logging

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch

from dens_ocp.errors import DensError
from dens_ocp.relaxation import unusable_results
from tests.lmdbs import s2ef_records, write_lmdb
from tests.relaxation.relaxations import trainer_of
from tests.runs import make_trainer, small_config


@pytest.fixture
def records():
    """Five frames, with relaxed labels too."""
    found = s2ef_records(5)
    for record in found:
        record.y_relaxed, record.pos_relaxed = record.y, record.pos.clone()
    return found


def settings_of(tmp_path, records):
    data = str(write_lmdb(tmp_path / "data.lmdb", records))
    settings = small_config(tmp_path)
    settings["dataset"] = {split: {"src": data} for split in ("val", "test", "relax")}
    settings["task"] = {
        "prediction_dtype": "float32", "write_pos": True, "relaxation_steps": 2,
        "relax_opt": {"traj_dir": str(tmp_path / "traj")},
    }  # fmt: skip
    del settings["optim"]["load_balancing"]
    return settings


def do(trainer, what):
    if what == "validate":
        return trainer.validate(disable_tqdm=True)
    if what == "run-relaxations":
        return trainer.run_relaxations()
    return trainer.predict(trainer.test_loader, results_file="predictions", disable_tqdm=True)


def evaluating(settings, tmp_path):
    trainer = trainer_of(settings, tmp_path)
    trainer.is_debug = False
    return trainer


SECTIONS = {"validate": "val", "predict": "test", "run-relaxations": "relax"}
everything = pytest.mark.parametrize("what", SECTIONS)


@everything
def test_weights_that_are_nan(tmp_path, records, what):
    trainer = evaluating(settings_of(tmp_path, records), tmp_path)
    with torch.no_grad():
        trainer.model.sphere_embedding.weight[:] = float("nan")
    with pytest.raises(
        DensError,
        match=f"dataset.{SECTIONS[what]}: the results of 5 of 5 structures are NaN or infinite, "
        "for example .*0.*; 1 parameters are not finite, the first is sphere_embedding.weight; no",
    ):
        do(trainer, what)
    assert list((tmp_path / "results" / "run").iterdir()) == []


@everything
@pytest.mark.parametrize("field", ["pos", "element"])
def test_a_structure_that_is_nan(tmp_path, records, what, field, caplog):
    """A record with an atom at NaN, to which a model gives a finite energy, is refused by name."""
    if field != "element":
        records[1][field].view(-1)[0] = float("nan")
    trainer = evaluating(settings_of(tmp_path, records), tmp_path)
    if field == "element":
        own = {int(number) for number in records[1].atomic_numbers}
        for index in (0, 2, 3, 4):
            own -= {int(number) for number in records[index].atomic_numbers}
        with torch.no_grad():
            trainer.model.sphere_embedding.weight[min(own)] = float("nan")
    if field == "pos":
        with pytest.raises(DensError, match="sid 1, fid 1: pos holds NaN"):
            do(trainer, what)
        return
    with caplog.at_level(logging.WARNING):
        do(trainer, what)
    (said,) = [each for each in caplog.messages if "NaN or infinite" in each]
    name = {"validate": "sid 1 fid 1", "predict": "1_1", "run-relaxations": "1"}[what]
    assert said == (
        f"dataset.{SECTIONS[what]}: the results of 1 of 5 structures are NaN or infinite, for "
        f"example {name}"
    ) + ("; 1 parameters are not finite, the first is sphere_embedding.weight" if field == "element"
         else "; the largest float16 number is 65504, so set task.prediction_dtype: float32"
         if what == "predict" else "")  # fmt: skip
    if what == "predict":
        with np.load(tmp_path / "results" / "run" / "ocp_predictions.npz") as file:
            energies = dict(zip(file["ids"].tolist(), file["energy"][:, 0], strict=True))
        assert [sid for sid, energy in energies.items() if not np.isfinite(energy)] == ["1_1"]


def test_energies_beyond_float16(tmp_path, records):
    settings = settings_of(tmp_path, records)
    settings["task"]["prediction_dtype"] = "float16"
    trainer = evaluating(settings, tmp_path)
    trainer.normalizers["energy"] = copy.deepcopy(make_normalizer(mean=-1e5))  # total energies
    with pytest.raises(DensError, match="5 of 5 .* so set task.prediction_dtype: float32"):
        do(trainer, "predict")


def make_normalizer(mean):
    from fairchem.core.modules.normalization.normalizer import create_normalizer

    return create_normalizer(mean=mean, rmsd=1.0)


@everything
def test_finite_results_are_not_spoken_of(tmp_path, records, what, caplog):
    trainer = evaluating(settings_of(tmp_path, records), tmp_path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):  # relaxations are read the second time
            do(trainer, what)
    assert not [each for each in caplog.messages if "NaN or infinite" in each]


def test_in_training_it_is_a_warning(tmp_path, records, caplog):
    settings = settings_of(tmp_path, records)
    trainer = make_trainer(settings, tmp_path, timestamp_id="run")
    trainer.in_training = True
    with torch.no_grad():
        trainer.model.sphere_embedding.weight[:] = float("nan")
    with caplog.at_level(logging.WARNING):
        trainer.validate(disable_tqdm=True)
    assert any("5 of 5 structures are NaN" in each for each in caplog.messages)


def test_results_of_positions_that_are_not_finite():
    """An atom at NaN has no edge, and the model gives it the finite energy of a lone atom."""
    batch = Batch.from_data_list(s2ef_records(2))
    batch.pos[3] = float("nan")
    outputs = {"energy": torch.ones(2, 1), "forces": torch.ones(len(batch.pos), 3)}
    targets = {"energy": {"level": "system"}, "forces": {"level": "atom"}}
    found = unusable_results.marked(outputs, batch, targets)
    assert found["energy"].isnan().flatten().tolist() == [True, False]
    assert torch.equal(found["forces"].isnan().any(1), batch.batch == 0)
    unusable = unusable_results.Unusable("dataset.relax")
    unusable.look(found, batch, targets)
    assert unusable.total == 2 and len(unusable.names) == 1
