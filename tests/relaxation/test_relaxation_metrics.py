"""Metrics of relaxations and of validation, against labels by hand, at several batch sizes."""

import numpy as np
import pytest
from fairchem.core.datasets import LmdbDataset

from tests.lmdbs import write_s2ef
from tests.relaxation import relaxations
from tests.relaxation.relaxations import OURS, STOCK
from tests.runs import small_config


def errors_by_hand(systems, run_dir, traj_dir):
    """Energy errors (eV) and mean absolute errors of free positions (Angstrom) of all systems."""
    frames, relaxed = relaxations.last_frames(traj_dir), relaxations.positions(run_dir)
    energy, position = [], []
    for record in LmdbDataset({"src": str(systems)}):
        sid, free = str(record.sid), (record.fixed == 0).numpy()
        energy.append(frames[sid].get_potential_energy() - record.y_relaxed)
        position.append((relaxed[sid] - record.pos_relaxed.numpy())[free])
    return np.array(energy), np.concatenate(position)


@pytest.mark.parametrize("trainer", [STOCK, OURS])
def test_metrics_of_relaxations(systems, tmp_path, trainer):
    """fairchem compares every system with every label of its batch."""
    found = {}
    for size in (1, 3, 4):
        settings = relaxations.config(systems, tmp_path / f"t{size}", size)
        _, found[size] = relaxations.relax(settings, tmp_path / f"r{size}", trainer)
    if trainer == STOCK:
        mae = [metrics["is2re_energy_mae"] for metrics in found.values()]
        assert abs(mae[1] - mae[0]) > 0.01 and abs(mae[2] - mae[0]) > 0.01
        return
    for size, metrics in found.items():
        energy, position = errors_by_hand(systems, tmp_path / f"r{size}", tmp_path / f"t{size}")
        assert len(energy) == 5
        by_hand = {
            "is2re_energy_mae": np.abs(energy).mean(),
            "is2re_energy_mse": (energy**2).mean(),
            "is2re_energy_within_threshold": (np.abs(energy) < 0.02).mean(),
            "is2rs_positions_mae": np.abs(position).mean(),
            "is2rs_positions_mse": (position**2).mean(),
        }
        assert {name: metrics[name] for name in by_hand} == pytest.approx(by_hand, rel=1e-5)
        assert metrics == pytest.approx(found[1], rel=1e-4)


def test_metrics_of_validation(tmp_path):
    """The energies of validation are (B, 1) on both sides, in fairchem as well."""
    data = write_s2ef(tmp_path / "val", 5, seed=3)
    settings = small_config(tmp_path)
    settings["dataset"] = {"val": {"src": str(data)}, "test": {"src": str(data)}}
    settings["task"]["prediction_dtype"] = "float32"
    found = []
    for size in (1, 3, 4):
        settings["optim"]["eval_batch_size"] = size
        trainer = relaxations.trainer_of(settings, tmp_path / f"r{size}")
        metrics = trainer.validate(disable_tqdm=True)
        found.append({name: metrics[name]["metric"] for name in metrics})
    trainer.is_debug = False
    predicted = trainer.predict(trainer.test_loader, disable_tqdm=True)
    energy = dict(zip(predicted["ids"], np.ravel(predicted["energy"]), strict=True))
    records = list(LmdbDataset({"src": str(data)}))
    mae = np.mean([abs(energy[f"{each.sid}_{each.fid}"] - each.y) for each in records])
    for each in found:
        assert each["energy_mae"] == pytest.approx(mae, rel=1e-5)


def test_labels_that_key_mapping_leaves_out(systems, tmp_path, caplog):
    """fairchem computes no metrics then, and says nothing."""
    caplog.set_level("INFO")
    settings = relaxations.config(systems, None, relaxation_steps=1)
    settings["dataset"]["relax"]["key_mapping"] = {"y": "energy", "force": "forces"}
    _, stock = relaxations.relax(settings, tmp_path, STOCK)
    assert not stock
    _, metrics = relaxations.relax(settings, tmp_path)
    assert metrics["is2re_energy_mae"] > 0
    assert "dataset.relax.key_mapping: {'y_relaxed': 'energy_relaxed'} was added" in caplog.text
    assert "Relaxations of 5 systems: is2rs_" in caplog.text


def test_labels_that_are_mapped_elsewhere_are_left_alone(systems, tmp_path, caplog):
    settings = relaxations.config(systems, None, relaxation_steps=1)
    settings["dataset"]["relax"]["key_mapping"] = {"y_relaxed": "energy"}
    trainer, metrics = relaxations.relax(settings, tmp_path)
    assert trainer.relax_dataset.key_mapping == {"y_relaxed": "energy"} and not metrics
    assert "dataset.relax has no energy_relaxed, so there are no metrics" in caplog.text
