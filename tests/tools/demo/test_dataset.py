"""The embedded data set: OC20's layout, honest labels, splits that are what they say."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace

import lmdb
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.optimize import BFGS

from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
from dens_ocp.errors import DensError
from dens_ocp.tools.demo.dataset import DataSettings, make
from dens_ocp.tools.demo.slabs import (
    FACETS,
    atom_references,
    clean_energy,
    cut,
    gas_reference,
)
from dens_ocp.tools.demo.trajectories import (
    DOMAINS,
    RELAXED_FMAX,
    VALIDATION_SPLITS,
    candidates,
    spread,
)

TINY = DataSettings(
    train_systems=3, frames=4, md_systems=1, md_frames=2, md_every=3, val_systems=2, val_frames=3
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make(tmp_path_factory.mktemp("demo") / "data", TINY, progress=False)


@pytest.fixture(scope="module")
def systems():
    """Systems by sid."""
    return {system.sid: system for split in DOMAINS for system in candidates(split, TINY.seed)[:50]}


def read_folder(folder):
    """All records of the LMDBs of a folder."""
    records = []
    for path in sorted(folder.glob("*.lmdb")):
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as database:
            transaction = database.begin()
            number = pickle.loads(transaction.get(b"length"))
            records += [pickle.loads(transaction.get(str(i).encode())) for i in range(number)]
    return records


def s2ef_records(data):
    return [r for split in DOMAINS for r in read_folder(data.s2ef(split))]


def emt(record, positions=None):
    pos = record.pos if positions is None else positions
    atoms = Atoms(
        record.atomic_numbers.numpy(), pos.numpy().astype(float), cell=record.cell[0].numpy(),
        pbc=True,
    )  # fmt: skip
    atoms.calc = EMT()
    return atoms


def test_sizes(data):
    assert data.counts["s2ef/train"] == 3 * 4 + 2
    assert data.counts["s2ef/train md"] == 2
    for split in VALIDATION_SPLITS:
        assert len(read_folder(data.s2ef(split))) == 2 * 3
        assert len(read_folder(data.is2re(split))) == 2


def test_records_have_oc20s_fields(data):
    for record in s2ef_records(data):
        n = record.natoms
        assert 20 <= n <= 40
        assert record.pos.shape == record.force.shape == (n, 3)
        assert record.cell.shape == (1, 3, 3)
        assert record.atomic_numbers.shape == record.tags.shape == record.fixed.shape == (n,)
        assert isinstance(record.y, float)
        assert isinstance(record.sid, int) and isinstance(record.fid, int)
    ids = [(record.sid, record.fid) for record in s2ef_records(data)]
    assert len(set(ids)) == len(ids)


def test_tag_0_is_fixed_and_the_adsorbate_is_tag_2(data, systems):
    for record in s2ef_records(data):
        assert ((record.fixed == 1) == (record.tags == 0)).all()
        assert (record.tags == 1).sum() in (6, 8) and (record.tags == 0).sum() in (16, 18, 24)
        adsorbate = Atoms(systems[record.sid].adsorbate)
        assert sorted(record.atomic_numbers[record.tags == 2]) == sorted(adsorbate.numbers)


def test_the_surface_is_the_undercoordinated_upper_side():
    slab = cut("Cu4", (1, 1, 1))
    top = np.isclose(slab.positions[:, 2], slab.positions[:, 2].max())
    assert ((slab.get_tags() == 1) == top).all() and top.sum() == 8
    stepped = cut("Cu4", (2, 1, 1))
    assert len(np.unique(stepped.positions[stepped.get_tags() == 1, 2].round(3))) == 3


@pytest.mark.parametrize("facet", FACETS)
def test_slabs_have_whole_layers(facet):
    """ase.build.surface puts half of a layer on the other side for some lattice constants."""
    for catalyst in (*DOMAINS["train"][0], *DOMAINS["val_ood_cat"][0]):
        slab = cut(catalyst, facet)
        heights, atoms = np.unique(slab.positions[:, 2].round(3), return_counts=True)
        assert len(set(atoms)) == 1, catalyst
        assert np.ptp(np.diff(heights)) < 2e-3
        assert heights[0] == pytest.approx(6.0, abs=2e-3)
        assert slab.cell[2, 2] - heights[-1] == pytest.approx(6.0, abs=2e-3)


def test_energies_and_forces_are_emts(data, systems):
    for record in s2ef_records(data)[::3]:
        atoms, system = emt(record), systems[record.sid]
        expected = atoms.get_potential_energy() - system.reference
        assert record.y == pytest.approx(expected, abs=2e-4)
        assert np.abs(atoms.get_forces() - record.force.numpy()).max() < 2e-4


def test_energy_reference_is_clean_slab_plus_gas():
    energies = {}
    for name in ("H2", "H2O", "CO", "N2"):
        gas = molecule(name)
        gas.calc = EMT()
        BFGS(gas, logfile=None).run(fmax=0.005)
        energies[name] = gas.get_potential_energy()
    reference = atom_references()
    assert reference["H"] == pytest.approx(energies["H2"] / 2)
    assert reference["O"] == pytest.approx(energies["H2O"] - energies["H2"])
    assert reference["C"] == pytest.approx(energies["CO"] - reference["O"])
    assert reference["N"] == pytest.approx(energies["N2"] / 2)
    assert gas_reference("OH") == pytest.approx(reference["O"] + reference["H"])
    unrelaxed = cut("NiPt3", (1, 1, 1)).get_potential_energy()
    assert clean_energy("NiPt3", (1, 1, 1)) < unrelaxed - 0.01


def test_is2re_records_are_relaxations(data, systems):
    for split in VALIDATION_SPLITS:
        frames = {(r.sid, r.fid): r for r in read_folder(data.s2ef(split))}
        for record in read_folder(data.is2re(split)):
            system, free = systems[record.sid], record.fixed.numpy() == 0
            assert "force" not in record and "y" not in record
            assert record.y_relaxed < record.y_init
            assert (record.pos == frames[record.sid, 0].pos).all()
            relaxed = emt(record, record.pos_relaxed)
            assert np.linalg.norm(relaxed.get_forces()[free], axis=1).max() < RELAXED_FMAX + 1e-3
            expected = relaxed.get_potential_energy() - system.reference
            assert record.y_relaxed == pytest.approx(expected, abs=2e-4)


def elements(catalyst):
    return set(Atoms(catalyst).symbols)


def test_out_of_domain_means_unseen_in_training():
    train_catalysts, train_adsorbates = map(set, DOMAINS["train"])
    for split in VALIDATION_SPLITS:
        catalysts, adsorbates = map(set, DOMAINS[split])
        new_catalysts = split in ("val_ood_cat", "val_ood_both")
        new_adsorbates = split in ("val_ood_ads", "val_ood_both")
        assert catalysts.isdisjoint(train_catalysts) == new_catalysts
        assert adsorbates.isdisjoint(train_adsorbates) == new_adsorbates
        # but no element is new: a model has no embedding for one
        assert set().union(*map(elements, catalysts)) <= set().union(
            *map(elements, train_catalysts)
        )
        assert set("".join(adsorbates)) <= set("".join(train_adsorbates))


def test_systems_of_splits_are_what_the_split_says(data, systems):
    for split, (catalysts, adsorbates) in DOMAINS.items():
        sids = {record.sid for record in read_folder(data.s2ef(split))}
        assert len(sids) == (3 if split == "train" else 2)
        for sid in sids:
            assert systems[sid].catalyst in catalysts and systems[sid].adsorbate in adsorbates
            assert systems[sid].facet in FACETS
    assert len(systems) == 50 * len(DOMAINS)  # no sid in two splits


def test_md_is_told_apart_from_relaxations(data):
    dataset = DeNSLmdbDataset({"src": str(data.s2ef("train"))})
    assert dataset.md_source == "data_log"
    assert [int(dataset[i].md) for i in range(len(dataset))] == [0] * 12 + [1] * 2


def test_metadata_for_load_balancing(data):
    dataset = DeNSLmdbDataset({"src": str(data.s2ef("train"))})
    natoms = [dataset[i].natoms for i in range(len(dataset))]
    assert list(dataset.get_metadata("natoms", list(range(len(dataset))))) == natoms


def test_normalizers_are_the_training_sets(data):
    records = read_folder(data.s2ef("train"))
    energies = [record.y for record in records]
    free = np.concatenate([record.force[record.fixed == 0].numpy() for record in records])
    assert data.normalizers["energy"]["mean"] == pytest.approx(np.mean(energies))
    assert data.normalizers["energy"]["stdev"] == pytest.approx(np.std(energies))
    assert data.normalizers["forces"]["stdev"] == pytest.approx(np.sqrt(np.mean(free**2)), rel=1e-5)


def test_same_seed_same_data_other_seed_other_data(data, tmp_path):
    def content(made):
        return [
            {name: getattr(value, "tolist", lambda v=value: v)() for name, value in record}
            for record in s2ef_records(made)
        ]

    again = make(tmp_path / "again", TINY, progress=False)
    assert content(again) == content(data)
    other = make(tmp_path / "other", replace(TINY, seed=1), progress=False)
    assert content(other) != content(data)


def test_data_are_reused_only_if_they_are_the_same(data, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(data.root, root)
    lmdb = root / "s2ef" / "val_id" / "data.0000.lmdb"
    before = lmdb.stat().st_mtime_ns
    make(root, TINY, progress=False)
    assert lmdb.stat().st_mtime_ns == before
    lmdb.unlink()
    made = make(root, TINY, progress=False)
    assert lmdb.is_file()
    made = make(root, replace(TINY, val_frames=2), progress=False)
    assert made.counts["s2ef/val_id"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("dens_ocp.tools.demo.dataset.VALIDATION_SPLITS", ("val_nowhere",))
    with pytest.raises(KeyError):
        make(tmp_path / "data", TINY, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(DensError, match="not a demo data set"):
        make(tmp_path, TINY, progress=False)
    assert (tmp_path / "thesis.tex").exists()


def test_manifest_lists_every_file(data):
    files = json.loads((data.root / "manifest.json").read_text())["files"]
    assert "s2ef/train/data_log.0001.txt" in files
    assert all((data.root / name).is_file() for name in files)


@pytest.mark.parametrize(
    ("length", "number"), [(1, 4), (4, 4), (5, 4), (13, 13), (14, 13), (80, 11)]
)
def test_spread_takes_first_and_last_and_none_twice(length, number):
    chosen = spread(list(range(length)), number)
    assert len(chosen) == min(length, number) == len(set(chosen))
    assert chosen[0] == 0 and chosen[-1] == length - 1 and chosen == sorted(chosen)
