"""The data set of the tests of training."""

from tests.training.conftest import data  # noqa: F401 (a fixture)
