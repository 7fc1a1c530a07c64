"""Data sets of initial structures that the tests of relaxations share (reading only)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.lmdbs import write_is2re
from tests.relaxation import relaxations


@pytest.fixture(scope="session")
def systems(tmp_path_factory) -> Path:
    """Five initial structures with relaxed energies and positions."""
    return write_is2re(tmp_path_factory.mktemp("relax") / "is2re", 5, seed=2)


@pytest.fixture(scope="session")
def initial_fmax(systems, tmp_path_factory) -> dict[str, float]:
    """The largest force (eV/Angstrom) on each initial structure by sid."""
    folder = tmp_path_factory.mktemp("initial")
    settings = relaxations.config(systems, folder / "t", relaxation_steps=0)
    relaxations.relax(settings, folder)
    return {
        sid: float(np.linalg.norm(frame.get_forces(), axis=1).max())
        for sid, frame in relaxations.last_frames(folder / "t").items()
    }
