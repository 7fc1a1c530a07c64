"""A file is opened once in a process, for any number of users."""

import os

import lmdb
import pytest

from dens_ocp.gaps import lmdb_environments
from dens_ocp.gaps.lmdb_environments import open_shared

READING = {"subdir": False, "readonly": True, "lock": False}


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
