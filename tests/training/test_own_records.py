"""Own data through the trainer: right values, or one message at the start."""

import numpy as np
import pytest
import torch

from dens_ocp.errors import DensError
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN
from tests.lmdbs import s2ef_records, write_lmdb
from tests.molecules import SMALL_EQUIFORMER_L2
from tests.relaxation import relaxations
from tests.runs import make_trainer, small_config

MODELS = {
    "equiformer_v2_dens": {**SMALL_EQUIFORMER, "num_layers": 1},
    "escn_dens": {**SMALL_ESCN, "num_layers": 1, "num_sphere_samples": 64},
    "esen_dens": {**SMALL_ESEN, "num_layers": 1},
    "esen_dens, gradient forces": {**SMALL_ESEN, "num_layers": 1, "forces": "gradient"},
    "equiformer_dens": {**SMALL_EQUIFORMER_L2, "num_layers": 1},
}


def own_data(folder, change=lambda record, index: None, count=6):
    records = s2ef_records(count)
    for index, record in enumerate(records):
        change(record, index)
    write_lmdb(folder / "train" / "data.0000.lmdb", records)
    return folder


def config_of(folder, model="equiformer_v2_dens", **optim):
    config = small_config(folder, MODELS[model], max_epochs=1, load_balancing=None, **optim)
    del config["dataset"]["val"], config["dataset"]["train"]["key_mapping"]
    return config


def test_energy_beside_y_is_the_label(tmp_path):
    """As stock fairchem reads it; the default mapping renamed ``y`` onto it."""

    def change(record, index):
        record.energy, record.forces = 100.0 + index, 2 * record.force

    trainer = make_trainer(config_of(own_data(tmp_path, change)), tmp_path)
    found = {
        sid: energy
        for batch in trainer.train_loader
        for sid, energy in zip(batch.sid.tolist(), batch.energy.tolist(), strict=True)
    }
    assert found == {index: 100.0 + index for index in range(6)}


@pytest.mark.parametrize("model", MODELS)
def test_elements_beyond_the_model(tmp_path, model):
    """One embedding for each number below ``max_num_elements``."""

    config = config_of(own_data(tmp_path), model)
    config["model"]["max_num_elements"] = 79  # Pt: 78
    make_trainer(config, tmp_path).train(disable_eval_tqdm=True)
    config["model"]["max_num_elements"] = 78
    words = r"atomic number 78, .*model.max_num_elements: 78.*--model.max_num_elements=79"
    with pytest.raises(DensError, match=words) as error:
        make_trainer(config, tmp_path).train(disable_eval_tqdm=True)
    assert "dataset.train: the record sid" in str(error.value)


def test_normalizers_are_fitted_to_records_that_were_checked(tmp_path):
    def change(record, index):
        record.pos = record.pos.double()
        record.extra = torch.zeros(2, 5 if index == 4 else 3)

    config = config_of(own_data(tmp_path, change))
    config["dataset"]["train"]["transforms"] = {
        "normalizer": {"fit": {"targets": {"energy": {}, "forces": {"mean": 0.0}}, "batch_size": 3}}
    }
    with pytest.raises(DensError, match="dataset.train: the record sid .* one batch: extra is"):
        make_trainer(config, tmp_path)
    own_data(tmp_path, lambda record, index: record.__setitem__("pos", record.pos.double()))
    trainer = make_trainer(config, tmp_path)
    energies = [record.y for record in s2ef_records(6)]
    assert float(trainer.normalizers["energy"].mean) == pytest.approx(np.mean(energies), abs=1e-5)


def without_sid(record, index):
    del record.sid, record.fid


def test_predictions_without_sid_are_numbered(tmp_path, caplog):
    folder = own_data(tmp_path, without_sid)
    config = config_of(folder)
    config["dataset"] = {"test": {"src": str(folder / "train")}}
    trainer = make_trainer(config, tmp_path, is_debug=False)
    predictions = trainer.predict(trainer.test_loader, disable_tqdm=True)
    assert sorted(predictions["ids"]) == [str(index) for index in range(6)]
    assert "dataset.test: the records have no sid" in caplog.text
    own_data(tmp_path, lambda record, index: index == 4 and record.__delitem__("sid"))
    trainer = make_trainer(config, tmp_path, is_debug=False)
    with pytest.raises(
        DensError, match="dataset.test: the record fid 1.* has no sid, which names its"
    ):
        trainer.predict(trainer.test_loader, disable_tqdm=True)


def test_relaxations_without_sid_are_numbered(tmp_path):
    source = own_data(tmp_path, without_sid, count=2) / "train"
    trainer = relaxations.trainer_of(relaxations.config(source, tmp_path / "t"), tmp_path)
    trainer.run_relaxations()
    assert sorted(path.name for path in (tmp_path / "t").glob("*.traj")) == ["0.traj", "1.traj"]


def test_a_calculator_says_which_element_it_does_not_know(tmp_path):
    config = config_of(own_data(tmp_path))
    config["model"]["max_num_elements"] = 79
    trainer = make_trainer(config, tmp_path)
    batch = next(iter(trainer.train_loader))
    trainer.predict(batch.clone(), per_image=False, disable_tqdm=True)
    batch.atomic_numbers[2] = 92
    with pytest.raises(DensError, match=r"atomic number 92 \(U\).*model.max_num_elements: 79"):
        trainer.predict(batch, per_image=False, disable_tqdm=True)
