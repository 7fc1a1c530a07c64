"""What is said inside and after ``quiet``."""

from __future__ import annotations

import logging
import warnings

import pytest

from dens_ocp.tools.quiet import quiet


def test_only_errors_inside_and_as_before_afterwards(caplog):
    with quiet(), warnings.catch_warnings(record=True) as seen:
        warnings.warn("inside", stacklevel=1)
        logging.warning("inside")
        logging.error("error")
    logging.warning("after")
    assert [each.message for each in caplog.records] == ["error", "after"]
    assert not seen


def test_as_before_after_an_exception(caplog):
    with pytest.raises(KeyError), quiet():
        raise KeyError
    logging.warning("after")
    assert caplog.messages == ["after"]
