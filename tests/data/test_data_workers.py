"""Data workers: each opens the LMDB files for itself; unreadable records keep their names."""

import os
import pickle

import lmdb
import pytest
import torch
from fairchem.core.datasets import LmdbDataset
from fairchem.core.datasets.base_dataset import create_dataset
from torch.utils.data import DataLoader

from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
from dens_ocp.data.lmdb_environment import LmdbEnvironment, reopen_in_each_process
from dens_ocp.data.records.named_records import read_with
from dens_ocp.data.records.record_ids import env_and_key
from dens_ocp.errors import DensError

SHARDS = [1, 2] * 20
START = ["fork", "spawn"]
FORMATS = ["dens_lmdb", "lmdb", "oc22_lmdb"]


def oc22(record, index):
    record.oc22 = 1


def opened(src, form, **options):
    """A data set as :class:`HostTrainer` has it: fairchem's subset around fairchem's class."""
    dataset = create_dataset({"src": str(src), "format": form, **options}, "train")
    reopen_in_each_process(dataset)
    read_with(dataset)
    return dataset


def sids_and_processes(records):
    return [int(record.sid) for record in records], os.getpid()


class WhoReads(torch.utils.data.Dataset):
    """Says which process reads, and which one had opened the file."""

    def __init__(self, src):
        self.records = DeNSLmdbDataset({"src": str(src)})

    def __len__(self):
        return len(self.records)

    def __getitem__(self, index):
        self.records[index]
        env, _ = env_and_key(self.records, index)
        return os.getpid(), list(env._opened)[-1]


def test_many_files_are_opened_by_the_process_that_reads(write):
    dataset = WhoReads(write(SHARDS))
    here = {dataset[index] for index in range(len(dataset))}
    assert here == {(os.getpid(), os.getpid())}  # opened before the fork
    loader = DataLoader(
        dataset, batch_size=3, num_workers=2, multiprocessing_context="fork", collate_fn=list
    )
    there = [each for batch in loader for each in batch]
    assert len(there) == 60 and all(reader == opener for reader, opener in there)
    assert len({reader for reader, _ in there}) == 2 and os.getpid() not in dict(there)
    assert dataset[0] == (os.getpid(), os.getpid())  # the parent's own still works


@pytest.mark.parametrize("start", START)
@pytest.mark.parametrize("form", FORMATS)
def test_all_formats_read_alike_in_workers(write, form, start):
    dataset = opened(write(SHARDS, change=oc22), form)
    expected = [int(dataset[index].sid) for index in range(60)]
    assert sorted(expected) == list(range(60))
    options = {"num_workers": 2, "multiprocessing_context": start}
    batches = list(DataLoader(dataset, 7, collate_fn=sids_and_processes, **options))
    assert [sid for sids, _ in batches for sid in sids] == expected
    assert len({process for _, process in batches}) == 2


@pytest.mark.parametrize("as_file", [False, True])
def test_stock_data_sets_stay_what_they_were(write, as_file):
    src = write([4]) / "data.0000.lmdb" if as_file else write([3, 1])
    dataset = LmdbDataset({"src": str(src)})
    before = [dataset[index].pos for index in range(4)]
    reopen_in_each_process(dataset)
    reopen_in_each_process(dataset)
    assert all(torch.equal(dataset[index].pos, before[index]) for index in range(4))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[3].pos, before[3]) and isinstance(dataset, LmdbDataset)


def test_others_are_left_alone():
    class Other:
        env = "cartpole"

    other = Other()
    reopen_in_each_process(other)
    read_with(other)
    reopen_in_each_process(None)
    read_with(None)
    assert other.env == "cartpole" and type(other) is Other


def test_closed_and_opened_again(write):
    environment = LmdbEnvironment(write([2]) / "data.0000.lmdb")
    assert environment.stat()["entries"] == 3
    environment.close()
    environment.close()
    assert environment.begin().get(b"0") is not None


@pytest.mark.parametrize(
    ("damage", "workers", "as_file"),
    # torch takes 5 s to end a worker after an error
    [("missing", 0, True), ("missing", 0, False), ("cut", 0, True), ("cut", 1, False),
     ("garbage", 0, False)],
)  # fmt: skip
@pytest.mark.parametrize("form", FORMATS)
def test_unreadable_records_are_named(write, form, damage, workers, as_file):
    src = write([5] if as_file else [2, 3], change=oc22)
    path = src / ("data.0000.lmdb" if as_file else "data.0001.lmdb")
    key = b"3" if as_file else b"1"
    with (
        lmdb.open(str(path), subdir=False, sync=False) as env,
        env.begin(write=True) as transaction,
    ):
        content = transaction.pop(key)
        if damage == "cut":
            transaction.put(key, content[:200])
        elif damage == "garbage":
            transaction.put(key, b"\x80\x05garbage")
        else:
            transaction.put(b"9", content)
    dataset = opened(path if as_file else src, form)
    loader = DataLoader(dataset, 1, collate_fn=list, num_workers=workers)
    with pytest.raises(DensError) as error:
        list(loader)
    assert str(error.value).startswith(f"record {key.decode()} of {path} cannot be read")
    assert "Traceback" not in str(error.value)


def test_a_shard_names_the_key_of_the_whole_set(write):
    src = write([2, 3])
    path = src / "data.0001.lmdb"
    with (
        lmdb.open(str(path), subdir=False, sync=False) as env,
        env.begin(write=True) as transaction,
    ):
        transaction.put(b"1", b"")
    dataset = LmdbDataset({"src": str(src), "shard": 1, "total_shards": 2})
    reopen_in_each_process(dataset)
    read_with(dataset)
    with pytest.raises(DensError, match=f"record 1 of {path} cannot be read"):
        dataset[0]
