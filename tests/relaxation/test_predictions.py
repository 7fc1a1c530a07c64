"""Prediction files: one prediction for every record, whole, the same in every run."""

import numpy as np
import pytest
import torch

from dens_ocp.data.records import record_ids
from dens_ocp.errors import DensError
from dens_ocp.relaxation import repeatable_frames, whole_results
from tests.lmdbs import s2ef_records, write_lmdb
from tests.relaxation import relaxations
from tests.relaxation.relaxations import OURS, STOCK
from tests.runs import small_config


@pytest.fixture
def settings(tmp_path):
    records = s2ef_records(5)
    settings = small_config(tmp_path)
    settings["dataset"] = {"test": {"src": str(write_lmdb(tmp_path / "test.lmdb", records))}}
    settings["task"]["prediction_dtype"] = "float32"
    del settings["optim"]["load_balancing"]
    return settings


def predict(settings, run_dir, name=OURS, seed=0):
    trainer = relaxations.trainer_of(settings, run_dir, name)
    trainer.is_debug = False
    torch.manual_seed(seed)
    trainer.predict(trainer.test_loader, results_file="predictions", disable_tqdm=True)
    (file,) = (run_dir / "results" / "run").glob("*")
    return file


@pytest.mark.parametrize("name", [STOCK, OURS])
def test_two_records_with_one_id(settings, tmp_path, name):
    """fairchem keeps one of them without a word."""
    records = s2ef_records(5)
    records[3].sid, records[3].fid = records[1].sid, records[1].fid
    settings["dataset"]["test"]["src"] = str(write_lmdb(tmp_path / "twice.lmdb", records))
    if name == STOCK:
        with np.load(predict(settings, tmp_path, name)) as file:
            assert len(file["ids"]) == 4
        return
    with pytest.raises(DensError, match="dataset.test: 5 records have 4 ids .* for example 1_1;"):
        predict(settings, tmp_path)
    assert list((tmp_path / "results" / "run").iterdir()) == []


def test_repeated_records_of_a_sampler_are_no_duplicates(settings, tmp_path):
    records = s2ef_records(5)
    ids = [record_ids.record_id(record) for record in records]
    record_ids.check_unique([*ids, ids[0]], records, "dataset.test")
    records[4].sid, records[4].fid = records[2].sid, records[2].fid
    ids[4] = ids[2]
    with pytest.raises(DensError, match=f"for example {ids[2]};"):
        record_ids.check_unique([*ids, ids[0]], records, "dataset.test")


def test_an_integer_string_or_tensor_is_an_id():
    (record,) = s2ef_records(1)
    for sid in (7, "7", torch.tensor([7]), np.int64(7)):
        record.sid = sid
        assert record_ids.record_id(record) == "7_0"
        assert record_ids.record_id(record, with_fid=False) == "7"
    del record.sid
    with pytest.raises(DensError, match="has no sid"):
        record_ids.record_id(record)


@pytest.mark.parametrize("name", [STOCK, OURS])
def test_predictions_repeat_to_the_byte(settings, tmp_path, name):
    """The models draw random edge frames; ours from seed and ids."""
    first = predict(settings, tmp_path / "a", name, seed=0).read_bytes()
    second = predict(settings, tmp_path / "b", name, seed=1).read_bytes()
    assert (first == second) == (name == OURS)


def test_edge_frames_leave_the_generator_alone():
    batch = {"sid": torch.tensor([3, 5])}

    class Batch(dict):
        sid = batch["sid"]

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    drawn = []
    for seed in (0, 0, 1):
        with repeatable_frames.repeatable(seed, Batch(batch), torch.device("cpu")):
            drawn.append(torch.rand(3))
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    with repeatable_frames.repeatable(0, Batch(), torch.device("cpu")):  # without ids
        assert torch.equal(torch.rand(3), torch.rand(3)) is False
        assert torch.equal(*(torch.rand_like(torch.zeros(2, 3)) for _ in range(2)))


def test_results_are_there_whole_or_not_at_all(tmp_path):
    cmd = {"results_dir": str(tmp_path)}
    with pytest.raises(KeyboardInterrupt), whole_results.whole_results(cmd):
        (open(f"{cmd['results_dir']}/x.npz", "wb")).write(b"half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [] and cmd == {"results_dir": str(tmp_path)}
    with whole_results.whole_results(cmd):
        np.savez(f"{cmd['results_dir']}/x.npz", a=1)
        assert not (tmp_path / "x.npz").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["x.npz"]
