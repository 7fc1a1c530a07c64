"""The file of relaxed structures, read back as Matbench Discovery's scripts read it."""

import numpy as np
import pandas as pd
import pytest
from ase.build import bulk
from ase.constraints import FixAtoms
from pymatgen.core import Structure

from dens_ocp.results.leaderboard import matbench_discovery


def materials():
    copper = bulk("Cu", cubic=True)
    copper.rattle(0.1, seed=0)
    salt = bulk("NaCl", "rocksalt", a=5.6)
    salt.info["more"] = np.zeros(3)
    salt.set_constraint(FixAtoms([0]))
    return [("wbm-1-1", copper, -14.5), ("wbm-1-2", salt, -6.25)]


def test_pandas_and_pymatgen_read_it(tmp_path):
    path = tmp_path / "folder" / "eqV2-wbm.json.gz"
    assert matbench_discovery.write(path, "eqV2", materials()) == 2
    frame = pd.read_json(path, lines=True).set_index("material_id")
    # join_fairchem_preds.py: `mat_id, struct_dict, pred_energy, *_ = row`, by place
    for row, (name, atoms, energy) in zip(frame.itertuples(), materials(), strict=True):
        material_id, structure, predicted, *others = row
        assert (material_id, predicted, others) == (name, energy, [])
        found = Structure.from_dict(structure)
        np.testing.assert_allclose(found.lattice.matrix, atoms.cell.array, atol=1e-12)
        np.testing.assert_allclose(found.cart_coords, atoms.positions, atol=1e-9)
        assert [site.specie.symbol for site in found] == atoms.get_chemical_symbols()
        assert not found.site_properties and not found.properties
    # analyze_geo_opt.py: the column of structures by its name
    assert [column for column in frame if "structure" in column] == ["eqV2_structure"]
    assert list(frame) == ["eqV2_structure", "eqV2_energy"]


def test_the_same_structures_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        matbench_discovery.write(tmp_path / name, "x", materials())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_nothing_half_written_is_left(tmp_path):
    def broken():
        yield materials()[0]
        raise OSError("gone")

    path = tmp_path / "x.json.gz"
    matbench_discovery.write(path, "x", materials())
    before = path.read_bytes()
    with pytest.raises(OSError, match="gone"):
        matbench_discovery.write(path, "x", broken())
    with pytest.raises(ValueError, match="JSON"):
        matbench_discovery.write(path, "x", [("m", materials()[0][1], float("nan"))])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
