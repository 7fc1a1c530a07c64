"""Damaged, missing and empty LMDBs are named before LMDB maps them."""

import faulthandler
import os
import pickle

import lmdb
import pytest
from fairchem.core.datasets.lmdb_dataset import LmdbDataset

from dens_ocp.data.checks import LMDB_FORMATS, check_dataset_paths
from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
from dens_ocp.errors import DensError
from tests.lmdbs import write_lmdb


def check(src, form="lmdb", name="dataset.train", **options):
    check_dataset_paths({"src": str(src), "format": form, **options}, name)


def check_in_child(src) -> str:
    """Message of the check, made in a process of its own: a SIGBUS must not end the tests."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            check(src)
            os.write(writer, b"no error")
        except DensError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        message = answer.read()
    assert os.waitpid(child, 0)[1] == 0, "the check itself was killed"
    return message


def cut(path, size):
    os.truncate(path, size)
    return path


def put(path, entries):
    with lmdb.open(str(path), subdir=False, map_size=1 << 26) as env:
        for transaction in entries:
            with env.begin(write=True) as txn:
                for key, value in transaction:
                    (txn.delete(key) if value is None else txn.put(key, value))
    return path


def pages(path) -> tuple[int, int]:
    """Bytes of a page, and the number of the last one that was ever in use."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env:
        return env.stat()["psize"], env.info()["last_pgno"]


@pytest.mark.parametrize("form", LMDB_FORMATS)
def test_whole_data_pass(write, form):
    src = write([2, 1])
    check(src, form)
    check(src / "data.0001.lmdb", form)
    check_dataset_paths({"src": str(src)}, "dataset.val")
    check_dataset_paths({"src": [str(src)]}, "dataset.val")


@pytest.mark.parametrize("form", LMDB_FORMATS)
def test_missing_path(tmp_path, form):
    with pytest.raises(DensError, match=r"dataset.val.src: .*gone.* does not exist") as error:
        check(tmp_path / "gone" / "train", form, "dataset.val")
    assert f"exists: {tmp_path})" in str(error.value)


def test_folder_without_lmdb(tmp_path):
    with pytest.raises(DensError, match=r"no \*.lmdb file \(it holds nothing\)"):
        check(tmp_path)
    for name in "abcd":
        (tmp_path / f"{name}.extxyz.xz").touch()
    with pytest.raises(DensError, match=r"it holds a.extxyz.xz, b.extxyz.xz, c.extxyz.xz, \.\.\."):
        check(tmp_path)


@pytest.mark.parametrize("src", [None, "", 3, ["a", "b"], []])
def test_src_that_is_no_path(src):
    with pytest.raises(DensError, match="dataset.train.src: .* is not the path"):
        check_dataset_paths({"src": src}, "dataset.train")


def test_other_formats_are_left_to_fairchem(tmp_path):
    check(tmp_path / "gone", "somebody_elses")


def test_files_of_ase(tmp_path):
    """What ``ase_db`` and the others look for, by fairchem's rules."""
    (tmp_path / "one.db").write_text("x")
    (tmp_path / "empty").mkdir()
    for form, src in (
        ("ase_db", tmp_path / "one.db"), ("ase_db", tmp_path), ("ase_db", f"{tmp_path}/*.db"),
        ("ase_db", "postgresql://user@host:5432/data"), ("ase_read", tmp_path),
    ):  # fmt: skip
        check(src, form)
    for form, src, words in (
        ("ase_db", tmp_path / "gone.db", "gone.db does not exist"),
        ("ase_db", f"{tmp_path}/*.aselmdb", "does not exist"),
        ("ase_db", tmp_path / "empty", "has no file"),
        ("ase_read", tmp_path / "one.db", "is a file"),
        ("ase_read_multi", tmp_path / "gone", "gone does not exist"),
    ):
        with pytest.raises(DensError, match=words):
            check(src, form)


def test_settings_of_the_split_count(write, tmp_path):
    good, gone = str(write([1])), str(tmp_path / "gone")
    settings = {"train": {"src": gone}, "val": {"src": good}}
    check_dataset_paths({"src": gone, "splits": settings}, "dataset.val")
    with pytest.raises(DensError, match="gone"):
        check_dataset_paths({"src": good, "splits": settings}, "dataset.train")
    with pytest.raises(DensError, match="gone"):
        check_dataset_paths({"src": good, "train_split_settings": {"src": gone}}, "dataset.train")


@pytest.mark.parametrize("option", ["metadata_path", "lin_ref", "oc20_ref"])
def test_missing_side_file(write, option):
    with pytest.raises(DensError, match=f"dataset.train.{option}: .*nowhere.npz"):
        check(write([1]), **{option: "nowhere.npz"})


def test_md_options_with_a_format_that_ignores_them(write):
    src = write([1])
    with pytest.raises(DensError, match="dataset.train.md_files: .*format: dens_lmdb"):
        check(src, "lmdb", md_files=["data.0000.lmdb"])
    check(src, "dens_lmdb", md_files=["data.0000.lmdb"])
    check(src, "lmdb", "dataset.val", md_files=["data.0000.lmdb"])  # handed down by fairchem


@pytest.mark.parametrize("with_length", [True, False])
def test_empty_lmdb(tmp_path, with_length):
    path = tmp_path / "data" / "data.0000.lmdb"
    if with_length:
        write_lmdb(path, [])
    else:
        path.parent.mkdir()
        put(path, [])
        put(path, [[(b"0", b"x")], [(b"0", None)]])
    for src in (path, path.parent):
        with pytest.raises(DensError, match=r"has no record.*data.0000.lmdb.*empty \(0 entries\)"):
            check(src)


def test_an_empty_shard_among_others_is_no_mistake(write):
    src = write([2, 0, 1])
    check(src)
    dataset = DeNSLmdbDataset({"src": str(src)})
    assert [dataset[index].sid for index in range(3)] == [0, 1, 2]


def test_length_that_promises_more_than_there_is(write):
    src = write([3, 3])
    put(src / "data.0001.lmdb", [[(b"2", None)]])
    with pytest.raises(DensError, match="data.0001.lmdb has 2 records, .*'length' says 3"):
        check(src)
    put(src / "data.0001.lmdb", [[(b"length", b"not a pickle")]])
    with pytest.raises(DensError, match="'length' of .*data.0001.lmdb is not a pickled number"):
        check(src)


@pytest.mark.parametrize("size", [1, 10, 19, 100, 152, 4095, 4096, 4097, 8191, 8192, 12288, "half"])
def test_cut_short(write, size):
    src = write([6, 20])
    path = src / "data.0001.lmdb"
    cut(path, path.stat().st_size // 2 if size == "half" else size)
    for each in (src, path):
        message = check_in_child(each)
        assert message.startswith(f"dataset.train.src: {path} is cut short"), message


def test_every_missing_page_is_found(write):
    """Cut page by page: the check and LMDB itself agree on which files can be read."""
    path = write([8]) / "data.0000.lmdb"
    whole = path.read_bytes()
    page, _ = pages(path)
    for size in range(page, len(whole) + 1, page):
        path.write_bytes(whole[:size])
        message = check_in_child(path)
        assert ("cut short" in message) == (size < len(whole)), (size, message)


def test_half_a_file_kills_fairchem(write):
    """The trap that the check removes."""
    src = write([20])
    cut(src / "data.0000.lmdb", (src / "data.0000.lmdb").stat().st_size // 2)
    child = os.fork()
    if child == 0:
        faulthandler.disable()  # pytest's; its report is of no use here
        try:
            dataset = LmdbDataset({"src": str(src)})
            dataset[19]
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with pytest.raises(DensError, match="cut short"):
        DeNSLmdbDataset({"src": str(src)})


def test_whole_file_that_ends_before_its_last_page(tmp_path):
    """LMDB does not write pages at the end that were taken and given back in one transaction."""
    records = [(b"%d" % index, b"y" * 300) for index in range(200)]
    large = (b"large", b"x" * 100_000)
    passing = [(b"passing", b"z" * 100_000), (b"passing", None)]
    path = put(tmp_path / "a.lmdb", [[*records, large], *[records] * 20, [*records, *passing]])
    page, last = pages(path)
    size = path.stat().st_size
    assert size < (last + 1) * page
    check(path)
    for lost in range(page, size, page):
        cut(path, size - lost)
        message = check_in_child(path)
        if "cut short" in message:
            break
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as env:
            with env.begin() as txn:
                assert sum(len(value) for _, value in txn.cursor()) == 200 * 300 + 100_000
    else:
        pytest.fail("no cut was ever found")


def test_no_lmdb_at_all(tmp_path):
    (tmp_path / "a.lmdb").write_bytes(b"# extxyz\n" * 2000)
    with pytest.raises(DensError, match="a.lmdb is not an LMDB file"):
        check(tmp_path)
    (tmp_path / "a.lmdb").write_bytes(b"")
    with pytest.raises(DensError, match=r"a.lmdb is an empty file \(0 bytes\)"):
        check(tmp_path)
    (tmp_path / "a.lmdb").unlink()
    (tmp_path / "a.lmdb").mkdir()
    with pytest.raises(DensError, match="a.lmdb cannot be read: Is a directory"):
        check(tmp_path)


def test_other_data_format(write):
    path = write([1]) / "data.0000.lmdb"
    content = bytearray(path.read_bytes())
    content[20] = 2
    path.write_bytes(content)
    with pytest.raises(DensError, match="LMDB data format 2"):
        check(path)


@pytest.mark.parametrize("form", ["lmdb", "dens_lmdb", "oc22_lmdb"])
def test_one_lmdb_can_be_train_and_val_and_test(write, form):
    """lmdb 2 and 3 refuse to open a file twice in a process; the project asks for lmdb<2."""
    from fairchem.core.datasets import oc22_lmdb_dataset  # noqa: F401 (registers)
    from fairchem.core.datasets.base_dataset import create_dataset

    src = write([3], change=lambda record, index: record.__setattr__("oc22", 1))
    config = {"src": str(src), "format": form}
    train, val = (create_dataset(config, split) for split in ("train", "val"))
    check(src, form)
    del train
    check(src, form)
    assert sorted(val[index].sid for index in range(3)) == [0, 1, 2]


def test_length_is_read_as_fairchem_reads_it(write):
    src = write([3])
    put(src / "data.0000.lmdb", [[(b"length", pickle.dumps(2))]])
    check(src)
    assert len(DeNSLmdbDataset({"src": str(src)})) == 2


def test_shared_alloys(shared):
    for name in ("s2ef_train", "s2ef_val", "is2re_val"):
        check(shared / "data" / "oc20_alloys" / name)
