"""Structures for scores are read as the trainer reads them."""

import numpy as np
import pytest
import torch

from dens_ocp.data.records.record_ids import record_id
from dens_ocp.data.structures import open_structures
from tests.lmdbs import s2ef_records, write_lmdb
from tests.molecules import write_molecules
from tests.runs import make_trainer, small_config, write_data


def test_own_forms_and_no_names(tmp_path):
    """Ids are those that predictions of the same data have."""
    records = s2ef_records(3)
    for record in records:
        record.pos, record.force = record.pos.double(), record.force.numpy()
        record.y, record.cell = torch.tensor([record.y]), record.cell[0]
        del record.sid, record.fid, record.natoms
    write_lmdb(tmp_path / "data.0000.lmdb", records)
    found = list(open_structures({"src": str(tmp_path)}))
    assert [each.id for each in found] == ["0", "1", "2"]
    for each, expected in zip(found, s2ef_records(3), strict=True):
        assert each.cell.shape == (3, 3) and each.forces.dtype == np.float32
        assert each.energy == np.float32(expected.y)
        assert np.array_equal(each.pos, expected.pos.numpy())


def test_molecules_without_a_cell(tmp_path):
    (structure,) = open_structures({"src": str(write_molecules(tmp_path, 1))})
    assert not structure.cell.any() and structure.forces.shape == (9, 3)


@pytest.mark.parametrize("option", [{}, {"first_n": 3}, {"sample_n": 3}, {"max_atoms": 8}], ids=str)
def test_they_are_the_records_that_a_run_predicts(tmp_path, option):
    data = write_data(tmp_path / "data")
    np.savez(data / "val/metadata.npz", natoms=[5, 9, 5, 9, 5, 9])
    config = small_config(data)
    config["dataset"]["val"] |= option
    trainer = make_trainer(config, tmp_path)
    predicted = [record_id(trainer.val_dataset[row]) for row in range(len(trainer.val_dataset))]
    section = {**config["dataset"]["train"], **config["dataset"]["val"]}
    read = [each.id for each in open_structures(section)]
    assert sorted(read) == sorted(predicted)
    assert 0 < len(read) < 6 or not option
