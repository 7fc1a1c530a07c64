"""Energies and positions by system from npz files; what a data set says of its structures."""

from __future__ import annotations

import numpy as np
import pytest

from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.reference import read_reference
from dens_ocp.results.scores.prediction_files import energies_of_npz, positions_of_npz


def test_energies_by_id_or_system(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, ids=np.array(["5_1", "6_2"]), energy=np.array([[1.0], [2.0]], np.float16))
    assert energies_of_npz(path) == {"5_1": 1.0, "6_2": 2.0}
    assert energies_of_npz(path, hybrid=True) == {"5": 1.0, "6": 2.0}
    np.savez(path, ids=np.array(["5_1", "5_2", "6_0"]), energy=np.zeros(3))
    with pytest.raises(DensError, match=r"5 more than once; ids must be unique \(1 are not\)"):
        energies_of_npz(path, hybrid=True)


def test_positions(tmp_path):
    path = tmp_path / "a.npz"
    rows = np.arange(9.0).reshape(3, 3)
    np.savez(path, ids=np.array(["5", "6"]), pos=rows, chunk_idx=np.array([1]))
    found = positions_of_npz(path)
    assert found["5"].tolist() == rows[:1].tolist()
    assert found["6"].tolist() == rows[1:].tolist()
    np.savez(path, ids=np.array(["5", "5"]), pos=rows, chunk_idx=np.array([1]))
    with pytest.raises(DensError, match="more than once"):
        positions_of_npz(path)
    np.savez(path, ids=np.array(["5", "6"]))
    with pytest.raises(DensError, match="has no 'pos'"):
        positions_of_npz(path)


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_damaged_bytes_are_named(share, tmp_path):
    path = tmp_path / "a.npz"
    values = np.random.default_rng(0).normal(size=200)
    np.savez_compressed(path, ids=np.arange(200).astype(str), pos=values)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DensError, match="cannot be read as an npz file"):
        positions_of_npz(path)


def test_a_reference(data):
    reference = read_reference(data.s2ef["id"], "id", progress=False)
    assert reference.names("s2ef").tolist() == ["1000_0", "1001_1", "1002_2", "1003_0"]
    assert reference.names("is2re").tolist() == ["1000", "1001", "1002", "1003"]
    records = data.records["id"]
    assert reference.natoms.tolist() == [record.natoms for record in records]
    assert reference.nfree.tolist() == [int((record.fixed == 0).sum()) for record in records]
    assert len(reference.fixed) == reference.natoms.sum()
