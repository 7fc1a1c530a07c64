"""The data set, the model and the processes of the tests of training."""

from tests.training.conftest import config, data, lives  # noqa: F401 (fixtures)
