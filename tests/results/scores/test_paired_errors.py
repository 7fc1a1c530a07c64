"""Paired differences of force errors: by hand, and their standard error by drawing systems."""

from dataclasses import replace

import numpy as np
import pytest

from dens_ocp.errors import DensError
from dens_ocp.results.scores.paired_errors import paired_errors
from dens_ocp.results.scores.prediction_files import Predictions
from tests.tools.demo.test_tables import structure


def with_errors(structures, errors):
    """Predictions that are off by ``errors`` (eV/Angstrom) in every component."""
    forces = [s.forces[s.free] + e for s, e in zip(structures, errors, strict=True)]
    return Predictions([s.id for s in structures], np.zeros(len(structures)), forces)


def frames(count, free=1, per_system=1):
    frame = structure("x", 0.0, [[1, 2, 3]] * free + [[9, 9, 9]], [0] * free + [1])
    sids = [str(number // per_system) for number in range(count)]
    return [replace(frame, sid=sid, id=f"{sid}_{number}") for number, sid in enumerate(sids)]


def test_by_hand():
    structures = frames(3)
    found = paired_errors(
        with_errors(structures, [0.10, 0.20, 0.30]),
        with_errors(structures, [-0.05, 0.10, 0.30]),
        structures,
    )
    assert (found.first, found.second) == (pytest.approx(200.0), pytest.approx(150.0))
    # differences of the systems: -50, -100, 0
    assert found.difference == pytest.approx(-50.0) and found.percent == pytest.approx(-25.0)
    assert found.error == pytest.approx(50 / np.sqrt(3)) and found.systems == 3
    assert not found.is_clear


def test_frames_of_a_system_are_no_new_evidence():
    single, many = frames(4), frames(40, per_system=10)
    better = [0.1, 0.2, 0.1, 0.3]
    one = paired_errors(with_errors(single, [0.3] * 4), with_errors(single, better), single)
    ten = paired_errors(
        with_errors(many, [0.3] * 40), with_errors(many, np.repeat(better, 10)), many
    )
    assert ten.systems == 4 and ten.error == pytest.approx(one.error)


def test_the_error_is_that_of_new_systems():
    """Systems of different sizes: the spread of the difference over many draws of systems."""
    rng = np.random.default_rng(0)

    def draw():
        structures = [
            replace(*frames(1, free=1 + number % 4), sid=str(number), id=str(number))
            for number in range(30)
        ]
        gains = rng.normal(0.05, 0.04, 30)
        return paired_errors(
            with_errors(structures, [1.0] * 30), with_errors(structures, 1.0 - gains), structures
        )

    drawn = [draw() for _ in range(300)]
    spread = np.std([each.difference for each in drawn])
    assert np.mean([each.error for each in drawn]) == pytest.approx(spread, rel=0.15)
    assert np.mean([each.is_clear for each in drawn]) > 0.95


def test_what_cannot_be_compared():
    structures = frames(2)
    whole = with_errors(structures, [0.1, 0.2])
    assert paired_errors(whole, whole, structures[:1]).error is None
    with pytest.raises(DensError, match="no prediction of the structure 1_1"):
        paired_errors(whole, whole.only({"0_0"}), structures)
    with pytest.raises(DensError, match="no forces"):
        paired_errors(whole, Predictions(whole.ids, whole.energy, None), structures)
    with pytest.raises(DensError, match="no structures"):
        paired_errors(whole, whole, [])
