"""A file is opened once in a process, for any number of users."""

import os

import lmdb
import pytest

from dens_ocp.gaps import lmdb_environments
from dens_ocp.gaps.lmdb_environments import open_shared

READING = {"subdir": False, "readonly": True, "lock": False}


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch):
    """Data sets of other tests may still be open."""
    monkeypatch.setattr(lmdb_environments, "_opened", {})


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "data.lmdb")
    with lmdb.open(path, subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"0", b"x")
    return path


def test_closed_with_its_last_user(path):
    first, second = open_shared(path, **READING), open_shared(path, **READING)
    first.close()
    first.close()
    with pytest.raises(lmdb.Error):
        first.begin()
    assert second.begin().get(b"0") == b"x"
    del second
    assert not lmdb_environments._opened


def test_a_transaction_outlives_its_user(path):
    assert open_shared(path, **READING).begin().get(b"0") == b"x"
    assert not lmdb_environments._opened


def test_in_a_fork(path):
    env = open_shared(path, **READING)
    child = os.fork()
    if child == 0:
        os._exit(0 if open_shared(path, **READING).begin().get(b"0") == b"x" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert env.begin().get(b"0") == b"x"


def test_a_file_that_was_replaced_is_another_one(path):
    """As data that are written again while an earlier data set of them is still there."""
    before = open_shared(path, **READING)
    new = f"{path}.new"
    with lmdb.open(new, subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"0", b"y")
    os.replace(new, path)
    os.replace(f"{new}-lock", f"{path}-lock")
    after = open_shared(path, **READING)
    assert (before.begin().get(b"0"), after.begin().get(b"0")) == (b"x", b"y")


def test_a_folder_is_known_by_the_file_in_it(tmp_path):
    folder = str(tmp_path / "data")
    with lmdb.open(folder) as env, env.begin(write=True) as transaction:
        transaction.put(b"0", b"x")
    reading = {**READING, "subdir": True}
    first, second = open_shared(folder, **reading), open_shared(folder, **reading)
    assert second.begin().get(b"0") == first.begin().get(b"0") == b"x"
    assert len(lmdb_environments._opened) == 1


def test_what_is_missing_is_lmdbs_error(tmp_path):
    with pytest.raises(lmdb.Error, match="No such file"):
        open_shared(str(tmp_path / "nothing.lmdb"), **READING)
