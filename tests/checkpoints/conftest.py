"""The data set and the model of the tests of training."""

from tests.training.conftest import config, data  # noqa: F401 (fixtures)
