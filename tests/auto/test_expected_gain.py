"""Whether DeNS is likely to pay: the measured trainings that are most like one."""

import json

import pytest

from dens_ocp.auto.expected_gain import MEASURED, Measured, expectation, nearest
from tests.conftest import ROOT

HERE = Measured("here", "a test", 1000, 10, 100_000, 5.0)


def test_likeness():
    assert HERE.distance(1000, 10, 100_000) == 0
    assert HERE.distance(10_000, 10, None) == pytest.approx(1)
    assert HERE.distance(10_000, 100, 1_000_000) == pytest.approx(3**0.5)
    for each in MEASURED:
        assert nearest(each.structures, each.epochs, each.parameters)[0] == each


def test_what_is_far_says_nothing():
    assert nearest(9_000, 10, 100_000, [HERE]) == [HERE]
    assert nearest(11_000, 10, 100_000, [HERE]) == nearest(5_000, 50, 500_000, [HERE]) == []
    assert "it is not known whether DeNS lowers the errors" in expectation([])


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        (
            [(5.0, 1.0), (8.0, None)],
            ("DeNS is likely to lower the errors: force errors 5 to 8 % lower"),
        ),
        (
            [(5.0, 1.0), (2.0, 1.5)],
            ("it is not clear whether DeNS lowers the errors: force errors 2 to 5"),
        ),
        ([(-3.0, 1.0), (2.0, 1.5)], "DeNS is not likely to lower the errors: force errors -3 to 2"),
    ],
)
def test_in_words(gains, said):
    found = [Measured("", "", 1, 1, 1, gain, error) for gain, error in gains]
    assert said in expectation(found)


def test_the_numbers_are_those_of_the_results():
    rows = json.loads((ROOT / "docs/results/acetylacetone.json").read_text())["rows"]
    difference = next(row for row in rows if row["variant"] == "dens")["metrics"][
        "force_mae_meV_per_A"
    ][1]
    baseline = next(row for row in rows if row["variant"] == "no_dens")["metrics"][
        "force_mae_meV_per_A"
    ][0]["mean"]
    (long,) = (each for each in MEASURED if (each.data, each.epochs) == ("acetylacetone", 80))
    assert long.gain == pytest.approx(difference["gain_percent"], abs=0.05)
    assert long.error == pytest.approx(100 * difference["error"] / baseline, abs=0.05)
    slabs = [
        json.loads(line) for line in (ROOT / "docs/results/slabs_seed_0.jsonl").open().readlines()
    ]
    for each in (each for each in MEASURED if each.data.startswith("slabs")):
        plain, dens = (
            min(
                row["forces_mae"]
                for row in slabs
                if (row["dens"], row["epochs"]) == (with_dens, each.epochs)
            )
            for with_dens in (False, True)
        )
        assert each.gain == pytest.approx(100 * (1 - dens / plain), abs=0.05)
    # paper: 20.46, 19.78, 19.42 meV/A without DeNS, 19.09, 18.58, 18.02 with it
    paper = [each.gain for each in MEASURED if each.data == "OC20 2M"]
    pairs = zip((20.46, 19.78, 19.42), (19.09, 18.58, 18.02), strict=True)
    assert paper == [pytest.approx(100 * (1 - dens / plain), abs=0.05) for plain, dens in pairs]
