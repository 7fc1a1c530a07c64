"""Records of ``dens_lmdb``: PyG, tensors, NumPy and plain Python are read, nothing is run."""

import os
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from dens_ocp.data.checks import check_lmdb_source
from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
from dens_ocp.data.records import record_pickles
from dens_ocp.errors import DensError
from tests.lmdbs import s2ef_records, write_lmdb
from tests.unsafe_pickles import LeavesAMark


def everything() -> Data:
    """A record with all that may be in one."""
    (record,) = s2ef_records(1)
    record.array, record.scalar = np.arange(6.0).reshape(2, 3), np.float32(1.5)
    record.strings, record.flags = np.array(["a", "bc"]), np.array([True, False])
    record.half, record.empty = torch.ones(2, dtype=torch.bfloat16), torch.zeros(0, 3)
    record.strided = torch.arange(12.0).reshape(3, 4)[:, ::2].t()
    record.kind, record.shape_ = torch.float64, torch.Size([2, 3])
    record.plain = {"a": [1, 2.0, None, True, "x", b"y", 1j, {3}, frozenset({4}), range(5)],
                    "b": OrderedDict(c=bytearray(b"z"))}  # fmt: skip
    record.parameter = torch.nn.Parameter(torch.ones(2))
    return record


def same(ours, theirs) -> bool:
    if isinstance(theirs, (torch.Tensor, np.ndarray)):
        return type(ours) is type(theirs) and ours.dtype == theirs.dtype and (
            ours.shape == theirs.shape and bool((ours == theirs).all())
        )  # fmt: skip
    return type(ours) is type(theirs) and ours == theirs


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_records_are_what_pickle_makes_of_them(protocol):
    content = pickle.dumps(everything(), protocol=protocol)
    ours, theirs = record_pickles.loads(content), pickle.loads(content)
    assert ours.keys() == theirs.keys()
    for key in theirs.keys():  # noqa: SIM118 (not a dict)
        assert same(ours[key], theirs[key]), key
    assert Batch.from_data_list([ours]).natoms.tolist() == [9]


def test_numpy_2_and_old_pyg():
    """Names that NumPy 1 and 2 write; PyG < 2 kept its fields in the object itself."""
    content = pickle.dumps(np.arange(3.0), protocol=2)
    for core in (b"core", b"_core"):
        written = re.sub(rb"numpy\._?core\.", b"numpy." + core + b".", content)
        assert b"cnumpy." + core + b".multiarray" in written
        assert record_pickles.loads(written).tolist() == [0, 1, 2]

    old = Data.__new__(Data)
    old.__dict__.update(x=None, y=1.5, pos=torch.ones(2, 3), sid=3)
    read = record_pickles.loads(pickle.dumps(old))
    assert "_store" not in read.__dict__ and read.__dict__["sid"] == 3


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "mark"


class NamesAFunction:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def storage_of(value) -> NamesAFunction:
    """A tensor's storage as ``pickle`` writes it, but of something else."""
    import io

    content = io.BytesIO()
    torch.save(value, content, _use_new_zipfile_serialization=False)
    return NamesAFunction(torch.storage._load_from_bytes, content.getvalue())


@pytest.mark.parametrize("place", ["attribute", "nested", "storage", "archive", "length"])
def test_nothing_is_run(place, mark, tmp_path):
    evil = LeavesAMark(mark)
    (record,) = s2ef_records(1)
    if place == "nested":
        record.extra = [{"a": (evil,)}]
    elif place == "storage":  # stock unpickling hands these bytes to an unlimited torch.load
        record.extra = storage_of(evil)
    elif place == "archive":
        torch.save(evil, tmp_path / "archive.pt")
        content = (tmp_path / "archive.pt").read_bytes()
        record.extra = NamesAFunction(torch.storage._load_from_bytes, content)
    elif place == "attribute":
        record.extra = evil
    path = write_lmdb(tmp_path / "data" / "data.0000.lmdb", [s2ef_records(1)[0], record])
    if place == "length":
        import lmdb

        with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as transaction:
            transaction.put(b"length", pickle.dumps(evil))
        with pytest.raises(DensError, match="'length' of .* is not a pickled number"):
            check_lmdb_source(path, "src")
    else:
        dataset = DeNSLmdbDataset({"src": str(path.parent)})
        assert dataset[0].natoms == 9
        with pytest.raises(DensError) as error:
            dataset[1]
        wanted = {"archive": "torch.storage._load_from_bytes", "storage": "__builtin__.exec"}
        wanted = wanted.get(place, "builtins.exec")
        assert str(error.value).startswith(f"record 1 of {path} needs {wanted}")
    assert not mark.exists()


def test_stock_lmdb_runs_it(mark, tmp_path):
    """What docs/safety.md says of ``format: lmdb``."""
    from fairchem.core.datasets import LmdbDataset

    (record,) = s2ef_records(1)
    record.extra = storage_of(LeavesAMark(mark))
    write_lmdb(tmp_path / "data.0000.lmdb", [record])
    LmdbDataset({"src": str(tmp_path)})[0]
    assert mark.exists()


@pytest.mark.parametrize(
    "function", [os.system, eval, getattr, __import__, torch.load, np.load, pickle.loads, open]
)
def test_functions_that_do_something_are_refused(function):
    content = pickle.dumps(NamesAFunction(function, "x"))
    with pytest.raises(record_pickles.RefusedGlobal, match=function.__name__):
        record_pickles.loads(content)


def test_names_with_dots_do_not_reach_further():
    """Protocol 4 can ask for an attribute of what is admitted."""
    content = b"\x80\x04\x8c\x19torch_geometric.data.data\x8c\x11Data.__init__.foo\x93."
    with pytest.raises(record_pickles.RefusedGlobal):
        record_pickles.loads(content)
    for core in ("torch._utils", "builtins"):
        name = b"_rebuild_tensor_v2.__globals__"
        module = core.encode()
        with pytest.raises(record_pickles.RefusedGlobal):
            record_pickles.loads(
                b"\x80\x04\x8c" + bytes([len(module)]) + module
                + b"\x8c" + bytes([len(name)]) + name + b"\x93."
            )  # fmt: skip


@pytest.mark.parametrize("end", [0, 10, 200, -1])
def test_damaged_ones_are_unpickling_errors(end):
    content = pickle.dumps(s2ef_records(1)[0])[:end]
    with pytest.raises(pickle.UnpicklingError):
        record_pickles.loads(content)


@pytest.mark.parametrize("number", [7, np.int64(7)])
def test_numbers(number):
    assert record_pickles.loads_number(pickle.dumps(number, protocol=-1)) == 7
    assert record_pickles.loads_number(pickle.dumps(number, protocol=2)) == 7
