"""The examples in docstrings are true."""

import doctest
import importlib

import pytest

from tests.test_architecture import SOURCE

WITH_EXAMPLES = sorted(path for path in SOURCE.rglob("*.py") if ">>> " in path.read_text())


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_examples_are_true(path):
    name = ".".join(["dens_ocp", *path.relative_to(SOURCE).with_suffix("").parts])
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0 and result.failed == 0
