"""Why a record cannot be read: damage is called damage, other things by their names."""

import pickle

import ase.db
import fairchem.core.datasets.oc22_lmdb_dataset  # noqa: F401 (registers)
import lmdb
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from torch.utils.data import DataLoader

from dens_ocp.data.checks import check_dataset_paths
from dens_ocp.data.opened_data import open_data_set
from dens_ocp.data.records.named_records import check_first_record, read_with
from dens_ocp.data.records.record_checks import RecordRules
from dens_ocp.errors import DensError
from tests.lmdbs import s2ef_records, write_lmdb

REQUIRED = {"energy": "system", "forces": "atom"}
WITH_LABELS = {"r_energy": True, "r_forces": True}


def opened(src, form, required=REQUIRED, **options):
    """A training set as the trainer has it."""
    section = {"src": str(src), "format": form, "no_shuffle": True, **options}
    check_dataset_paths(section, "dataset.train")
    dataset = open_data_set(section, "train")
    read_with(dataset, RecordRules("dataset.train", required, form=form))
    return dataset


@pytest.mark.parametrize("form", ["lmdb", "dens_lmdb", "oc22_lmdb"])
@pytest.mark.parametrize("folder", [True, False])
def test_keys_that_start_at_1(tmp_path, form, folder):
    path = tmp_path / "d" / "data.0000.lmdb"
    path.parent.mkdir()
    with lmdb.open(str(path), map_size=1 << 24, subdir=False) as env, env.begin(write=True) as txn:
        for index, record in enumerate(s2ef_records(3)):
            txn.put(f"{index + 1}".encode(), pickle.dumps(record))
    with pytest.raises(DensError, match=r"no key '0' \(it has 1, 2, 3, ...\).*keys 0, 1, 2"):
        opened(path.parent if folder else path, form)


OTHERS = {
    "dict": (lambda record: record.to_dict(), r"is a dict with pos, .*pickle.dumps\(Data\(\*\*rec"),
    "list": (lambda record: [record], "is a list, but fairchem needs"),
    "None": (lambda record: None, "is a NoneType, but fairchem needs"),
}


@pytest.mark.parametrize("form", ["lmdb", "dens_lmdb", "oc22_lmdb"])
@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("which", [0, 2])
def test_records_that_are_something_else(tmp_path, form, kind, which):
    change, words = OTHERS[kind]
    records = s2ef_records(3)
    records = [change(each) if index == which else each for index, each in enumerate(records)]
    for each in records:
        if kind != "None" and not isinstance(each, (dict, list)):
            each.oc22 = 1
    path = write_lmdb(tmp_path / "d" / "data.0000.lmdb", records)
    with pytest.raises(DensError, match=words) as error:
        dataset = opened(path.parent, form)
        dataset[which]
    assert str(error.value).startswith(f"record {which} of {path}")
    assert "damaged" not in str(error.value)


def test_labels_under_two_names(write):
    """Stock fairchem reads ``energy``; a ``key_mapping`` that renames onto it is one message."""

    def change(record, index):
        record.energy, record.forces = record.y - 5, 2 * record.force

    src = write([2], change=change)
    record = opened(src, "lmdb")[0]
    expected = s2ef_records(1)[0]
    assert record.energy == pytest.approx(expected.y - 5)
    assert (record.forces == 2 * expected.force).all()
    for form in ("lmdb", "dens_lmdb"):
        with pytest.raises(DensError, match="holds y and energy both, and key_mapping renames y"):
            opened(src, form, key_mapping={"y": "energy", "force": "forces"})[0]


def test_each_record_has_its_own_names(write):
    """Only some records have ``energy`` already."""

    def change(record, index):
        if index % 2:
            record.energy, record.y = record.y, -1e9

    dataset = opened(write([4], change=change), "lmdb")
    expected = [record.y for record in s2ef_records(4)]
    assert [dataset[index].energy for index in range(4)] == pytest.approx(expected)


def test_damage_is_called_damage(write):
    src = write([2])
    path = src / "data.0000.lmdb"
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"1", txn.get(b"1")[:300])
    for form in ("lmdb", "dens_lmdb"):
        with pytest.raises(DensError, match=f"record 1 of {path} cannot be read .*is damaged"):
            opened(src, form)[1]


def test_what_fairchem_cannot_do_with_a_record_is_no_damage(write):
    src = write([2])  # no record has oc22, and total energies are not asked for
    with pytest.raises(DensError, match="record 1 of .*train_on_oc20_total_energies") as error:
        opened(src, "oc22_lmdb")[1]
    assert "damaged" not in str(error.value)


# ---- ASE ---------------------------------------------------------------------------------------


def copper(seed):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=seed)
    atoms.calc = EMT()
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def write_database(path, change=lambda atoms, index: None, count=4):
    # a file is appended to
    options = {"use_lock_file": False} if path.suffix == ".aselmdb" else {}
    with ase.db.connect(str(path), **options) as database:
        for index in range(count):
            atoms = copper(index)
            change(atoms, index)
            database.write(atoms)
    return path


def test_a_database_without_a2g_args(tmp_path):
    path = write_database(tmp_path / "x.db")
    with pytest.raises(
        DensError, match=r"no label 'energy'.*dataset.train.a2g_args: {r_energy: True, r_forces: T"
    ):
        check_first_record(opened(path, "ase_db"), "dataset.train")
    dataset = opened(path, "ase_db", a2g_args=dict(WITH_LABELS))
    check_first_record(dataset, "dataset.train")
    assert dataset[1].energy == pytest.approx(copper(1).get_potential_energy())
    assert dataset[1].atomic_numbers.tolist() == [29] * 4 and dataset[1].pbc.shape == (1, 3)


@pytest.mark.parametrize("missing", ["forces", "everything"])
def test_an_unlabelled_row_is_named(tmp_path, missing):
    def change(atoms, index):
        if index == 2:
            atoms.calc = None if missing == "everything" else SinglePointCalculator(atoms, energy=1)

    path = write_database(tmp_path / "x.db", change)
    dataset = opened(path, "ase_db", a2g_args=dict(WITH_LABELS))
    assert np.isfinite(dataset[3].energy)
    words = {"forces": r"has no forces \(its results: energy\)", "everything": "has no energy"}
    with pytest.raises(DensError, match=f"row 3 of {path} {words[missing]}.*r_"):
        dataset[2]


@pytest.mark.parametrize("case", ["no stress", "3 x 3", "no volume"])
def test_a_row_with_a_stress_that_is_none(tmp_path, case):
    """Of a database that was not made by `dens-ocp data materials`."""
    flat = [[3, 0, 0], [0, 3, 0], [0, 3, 0]]

    def change(atoms, index):
        atoms.calc.results["stress"] = np.full(6, 0.01)
        if index == 2 and case == "no stress":
            del atoms.calc.results["stress"]
        elif index == 2 and case == "3 x 3":  # SQLite gives its 9 numbers back
            atoms.calc.results["stress"] = np.eye(3)
        elif index == 2:
            atoms.set_cell(flat)
            atoms.calc = SinglePointCalculator(atoms, **atoms.calc.results)

    path = write_database(tmp_path / "x.db", change)
    dataset = opened(path, "ase_db", a2g_args={**WITH_LABELS, "r_stress": True})
    assert dataset[3].stress.shape[-2:] == (3, 3)
    words = {
        "no stress": r"has no stress \(its results: energy, forces\)",
        "3 x 3": r"has a stress of shape \(9,\), but ASE reads 6 numbers",
        "no volume": r"is periodic .* but its cell has no volume: \[\[3.0, 0.0, 0.0\]",
    }
    with pytest.raises(DensError, match=f"row 3 of {path} {words[case]}"):
        dataset[2]


def test_databases_that_are_not_there_or_no_databases(tmp_path):
    with pytest.raises(DensError, match="dataset.train.src: .*gone.db does not exist"):
        opened(tmp_path / "gone.db", "ase_db")
    (tmp_path / "notes.db").write_text("not a database\n" * 100)
    with pytest.raises(DensError, match=r"dataset.train \(format ase_db, src .*notes.db\) cannot"):
        opened(tmp_path / "notes.db", "ase_db")
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "readme.txt").write_text("x")
    with pytest.raises(DensError, match="cannot be opened: .*No valid ase data"):
        opened(tmp_path / "f", "ase_db")


def test_a_database_read_as_lmdb(tmp_path):
    """OMat24's files under ``format: lmdb``; the keys are those that ase-db-backends writes."""
    path = tmp_path / "d" / "x.aselmdb"
    path.parent.mkdir()
    with lmdb.open(str(path), map_size=1 << 24, subdir=False) as env, env.begin(write=True) as txn:
        for key in ("1", "2", "3", "4", "5", "nextid"):
            txn.put(key.encode(), b"x")
    for src in (path, path.parent):
        with pytest.raises(DensError, match="set format: ase_db, and a2g_args"):
            opened(src, "lmdb")


def test_first_n_of_a_smaller_set(write):
    with pytest.raises(DensError, match="cannot be opened: .*Cannot take 5 data points"):
        open_data_set({"src": str(write([2])), "first_n": 5}, "train")


def names(records):
    return [int(each.sid) for each in records]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_aselmdb(tmp_path, start):
    """OMat24's and ODAC25's files, also in data workers."""
    pytest.importorskip("ase_db_backends")
    path = write_database(tmp_path / "x.aselmdb")
    dataset = opened(path, "ase_db", a2g_args=dict(WITH_LABELS))
    assert dataset[1].energy == pytest.approx(copper(1).get_potential_energy())
    assert dataset[1].forces.numpy() == pytest.approx(copper(1).get_forces(), abs=1e-6)
    options = {"num_workers": 1, "multiprocessing_context": start}
    found = [
        each for batch in DataLoader(dataset, 2, collate_fn=names, **options) for each in batch
    ]
    assert found == names([dataset[index] for index in range(4)])
