"""Records that cannot be trained on are named, also from the workers of a data loader."""

import pickle
from functools import partial

import pytest
import torch
from fairchem.core.datasets.base_dataset import create_dataset
from fairchem.core.datasets.lmdb_dataset import data_list_collater
from torch.utils.data import DataLoader

from dens_ocp.data.records.collation import CheckingCollater
from dens_ocp.data.records.named_records import check_first_record, read_with
from dens_ocp.data.records.record_checks import RecordRules, check_record
from dens_ocp.errors import DensError
from tests.conftest import slab
from tests.data.conftest import KEY_MAPPING
from tests.lmdbs import s2ef_records

REQUIRED = {"energy": "system", "forces": "atom"}
WHERE = "dataset.train"
BAD = 7  # the second record of the third shard


def dataset_of(src, required=REQUIRED, form="lmdb", key_mapping=KEY_MAPPING, **rules):
    """As :class:`HostTrainer` has it."""
    config = {"src": str(src), "format": form, "no_shuffle": True, "key_mapping": key_mapping}
    dataset = create_dataset(config, "train")
    read_with(dataset, RecordRules(WHERE, required, **rules))
    return dataset


def collater():
    return CheckingCollater(partial(data_list_collater, otf_graph=True), WHERE)


def read_all(src, workers=0, **options):
    dataset = dataset_of(src, **options)
    return list(DataLoader(dataset, batch_size=4, collate_fn=collater(), num_workers=workers))


def first_atom(key, value):
    def change(record):
        record[key] = record[key].clone()
        record[key].view(-1, 3)[0, 1] = value

    return change


def set_to(key, value):
    return lambda record: record.__setitem__(key, value)


def drop(key):
    return lambda record: record.__delitem__(key)


def no_atoms(record):
    for key in ("pos", "force", "atomic_numbers", "tags", "fixed"):
        record[key] = record[key][:0]
    record.natoms = 0


CASES = {
    "no forces": (drop("force"), r"no label 'forces'.*key_mapping: {NAME: forces}"),
    "forces None": (set_to("force", None), "no label 'forces'"),
    "no energy": (drop("y"), "no label 'energy'.*key_mapping"),
    "NaN force": (first_atom("force", float("nan")), r"forces holds NaN .*\(1 of 27\)"),
    "infinite force": (first_atom("force", float("inf")), "forces holds NaN or infinite"),
    "NaN energy": (set_to("y", float("nan")), "energy holds NaN"),
    "infinite energy": (set_to("y", torch.tensor([-float("inf")])), "energy holds NaN or inf"),
    "NaN position": (first_atom("pos", float("nan")), "pos holds NaN"),
    "NaN cell": (first_atom("cell", float("nan")), "cell holds NaN"),
    "flat forces": (lambda r: r.__setitem__("force", r.force.flatten()), r"shape \(27,\), exp"),
    "too few forces": (lambda r: r.__setitem__("force", r.force[1:]), r"\(8, 3\), expected \(9, 3"),
    "no atoms": (no_atoms, "has no atoms"),
    "no positions": (drop("pos"), "has no positions"),
}


# torch may take 5 s to end a worker that raised
@pytest.mark.parametrize(("case", "workers"), [*((case, 0) for case in CASES), ("NaN force", 1)])
def test_bad_record_is_named(write, case, workers):
    change, message = CASES[case]
    src = write([3, 3, 3], change=lambda record, index: index == BAD and change(record))
    with pytest.raises(DensError, match=message) as error:
        read_all(src, workers)
    text = str(error.value)
    assert text.startswith(f"{WHERE}: the record sid {BAD}, fid 1, id 2_1"), text
    assert "Traceback" not in text


def test_good_records_pass_unchanged(write):
    src = write([3, 3, 3])
    stock = {"src": str(src), "no_shuffle": True, "key_mapping": KEY_MAPPING}
    plain = DataLoader(create_dataset(stock, "train"), batch_size=4, collate_fn=collater().collater)
    for checked, batch in zip(read_all(src, workers=1), plain, strict=True):
        assert checked.keys() == batch.keys()
        assert torch.equal(checked.forces, batch.forces)
        assert torch.equal(checked.energy, batch.energy)


def test_forgotten_key_mapping(write):
    src = write([2])
    (batch,) = read_all(src, key_mapping=None)
    expected = [record.y for record in s2ef_records(2)]
    assert batch.energy.tolist() == pytest.approx(expected) and "forces" in batch
    assert "y" not in batch and "force" not in batch


def test_relaxed_energy_has_its_own_key_mapping(write):
    def change(record, index):
        record.y_relaxed = record.y
        del record.y

    src = write([1], change=change)
    with pytest.raises(DensError, match="key_mapping: {y_relaxed: energy}"):
        check_first_record(dataset_of(src, key_mapping=None), WHERE)
    check_first_record(dataset_of(src, key_mapping={"y_relaxed": "energy"}), WHERE)


def test_training_set_without_forces_is_found_at_set_up(write):
    src = write([2], change=lambda record, index: record.__delitem__("force"))
    with pytest.raises(DensError, match="'forces'.*training with forces or DeNS is not possible"):
        check_first_record(dataset_of(src), WHERE)
    check_first_record(dataset_of(src, {"energy": "system"}), WHERE)


def test_first_record_of_an_empty_subset(write):
    with pytest.raises(DensError, match="dataset.train has no record left"):
        check_first_record(torch.utils.data.Subset(dataset_of(write([2])), []), WHERE)


def test_first_record_that_cannot_be_read(write):
    import lmdb

    src = write([2])
    with lmdb.open(str(src / "data.0000.lmdb"), subdir=False) as env, env.begin(write=True) as txn:
        txn.put(b"0", b"\x80\x05garbage")
    for form in ("lmdb", "dens_lmdb"):
        with pytest.raises(DensError, match="cannot be read"):
            check_first_record(dataset_of(src, form=form), WHERE)


def test_sid_may_be_a_tensor_or_missing(write):
    def change(record, index):
        record.sid = torch.tensor([41]) if index == 0 else None
        record.fid = record.fid if index == 0 else None
        record.y = float("nan")

    dataset = dataset_of(write([2], change=change))
    for index, name in enumerate(("sid 41, fid 0, id 0_0", "id 0_1")):
        with pytest.raises(DensError, match=f"the record {name}: energy"):
            collater()([dataset[index]])


@pytest.mark.parametrize("form", ["lmdb", "ase_db"])
def test_parts_of_a_tensor_that_is_missing_or_whole(form):
    record = slab()
    parts = {"stress_isotropic": "stress", "stress_anisotropic": "stress"}
    rules = RecordRules(WHERE, {"stress_isotropic": "system"}, parts=parts, form=form)
    with pytest.raises(DensError) as error:
        check_record(record, rules)
    text = str(error.value)
    assert "has no label 'stress'" in text
    fix = "a2g_args: {r_stress: True}" if form == "ase_db" else "key_mapping: {NAME: stress}"
    assert fix in text
    record.stress = torch.zeros(1, 3, 3)
    with pytest.raises(DensError, match="has 'stress' but not its part.*decompose_tensor"):
        check_record(record, rules)
    record.stress_isotropic = torch.zeros(1, 1)
    check_record(record, rules)


def test_collater_can_be_pickled(write):
    copy = pickle.loads(pickle.dumps(collater()))
    assert copy([dataset_of(write([1]))[0]]).energy.shape == (1,)


def test_shared_alloys(shared):
    src = shared / "data" / "oc20_alloys" / "s2ef_val"
    if not src.is_dir():
        pytest.skip("no OC20-like alloys in ../shared")
    assert sum(len(batch) for batch in read_all(src)) == 190
