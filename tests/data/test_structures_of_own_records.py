"""Structures for scores are read as the trainer reads them."""

import numpy as np
import torch

from dens_ocp.data.structures import open_structures
from tests.lmdbs import s2ef_records, write_lmdb
from tests.molecules import write_molecules


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
