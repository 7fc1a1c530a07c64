"""A model that draws random numbers wherever EquiformerV2 can."""

from pathlib import Path

import pytest

from tests.conftest import SMALL_EQUIFORMER
from tests.runs import lives_of_this_process, small_config, write_config, write_data

RANDOM_EQUIFORMER = {**SMALL_EQUIFORMER, "alpha_drop": 0.2, "drop_path_rate": 0.2, "num_layers": 1}


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(data, tmp_path):
    """Writes a config: dropout, drop path, EMA, validation in the middle of epochs."""

    def write(name: str = "c.yml", **optim) -> Path:
        optim = {"max_epochs": 3, "eval_every": 3, "checkpoint_every": 2, **optim}
        # the default on CPUs, where a resume is exact to the last bit with any number of ranks
        optim.setdefault("ddp_find_unused_parameters", True)
        return write_config(tmp_path / name, small_config(data, model=RANDOM_EQUIFORMER, **optim))

    return write


@pytest.fixture(scope="session")
def lives():
    return lives_of_this_process()
