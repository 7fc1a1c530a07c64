"""Curves: how much longer the baseline needs, errors by split, the picture."""

import json
import re

import pytest

from dens_ocp.errors import DensError
from dens_ocp.tools.ablate.comparison import collect, draw, json_table, latex_table, text_table
from dens_ocp.tools.ablate.curve import curve_table, draw_curve, reached
from dens_ocp.tools.ablate.plan import read_plan
from dens_ocp.tools.ablate.runs import runs_of
from tests.tools.ablate.test_plan import write_plan

FALLING = [(10, 40.0), (20, 30.0), (40, 24.0)]


@pytest.mark.parametrize(
    ("needs", "error", "times"),
    [
        (10, 30.0, "2.0"),  # a point of the baseline's
        (10, 35.0, "1.4"),  # between 10 and 20: 10 * sqrt(2)
        (10, 23.0, "> 4.0"),  # never
        (20, 41.0, "< 0.5"),  # at once
        (10, 40.0, "< 1.0"),
    ],
)
def test_how_much_longer(needs, error, times):
    assert str(reached(needs, error, FALLING)) == times
    assert str(reached(needs, error, FALLING[::-1])) == times


def test_an_error_that_rises_again_was_reached_before():
    assert str(reached(10, 25.0, [(10, 40.0), (20, 25.0), (40, 26.0)])) == "2.0"
    assert reached(10, 25.0, []) is None


@pytest.fixture
def scored(tmp_path):
    base = {
        "short": {"config": "config.yml", "at": 40, "set": {"optim.max_epochs": 40}},
        "long": {"config": "config.yml", "at": 80, "set": {"optim.max_epochs": 80}},
    }
    plan = read_plan(write_plan(tmp_path, base=base, curve="epochs", seeds=[0, 1]))
    runs = runs_of(plan, tmp_path, tmp_path / "out")
    for run in runs:
        assert run.config["optim"]["max_epochs"] == plan.bases[run.base].at
        if run.variant == "half":
            continue
        force = (30.0 if run.variant == "dens" else 40.0) - (run.base == "long") * 10.0 + run.seed
        numbers = {"force_mae_meV_per_A": force, "energy_mae_meV": 7.0}
        numbers |= {"energy_per_atom_mae_meV": 0.5, "stress_mae_meV_per_A3": force / 10}
        splits = {"id": numbers, "ood": {**numbers, "force_mae_meV_per_A": 2 * force}}
        splits["average"] = {**numbers, "force_mae_meV_per_A": 1.5 * force}
        run.evaluation.path.mkdir(parents=True)
        run.evaluation.scores("json").write_text(json.dumps({"scores": {"s2ef": splits}}))
        run.notes.parent.mkdir(exist_ok=True)
        minutes = plan.bases[run.base].at * (1.25 if run.variant == "dens" else 1.0)
        notes = {"seconds": 1.0, "processor_seconds": 60 * minutes, "starts": 1}
        run.notes.write_text(json.dumps(notes))
    return plan, collect(plan, runs)


def test_splits_and_crystals(scored):
    plan, rows = scored
    text = text_table(plan, rows)
    for title in ("short, average of id, ood", "short, id", "long, ood"):
        assert f"\n{title}\n" in f"\n{text}"
    assert "energy MAE per atom (meV)" in text and "stress MAE (meV/A^3)" in text
    assert "energy MAE (meV)" not in text
    numbers = json.loads(json_table(plan, rows))["rows"]
    dens = next(row for row in numbers if (row["base"], row["variant"]) == ("long", "dens"))
    assert dens["processor_minutes"] == 100 and dens["at"] == 80
    assert dens["splits"]["ood"]["force_mae_meV_per_A"][0]["mean"] == 41.0
    assert dens["splits"]["id"]["force_mae_meV_per_A"][1]["mean"] == -10.0
    assert len(re.findall("& no DeNS +&", latex_table(plan, rows))) == 6
    assert len(draw(plan, rows).axes) == 6 * 3


def test_curve(scored):
    plan, rows = scored
    text = curve_table(plan, rows)
    dens = [line.split() for line in text.splitlines() if line.startswith("dens ")]
    # 40 epochs with DeNS are as good as 80 without; these take 80 minutes for 50
    assert dens[2][1:6] == ["40", "50.0", "30.50", "2.0", "1.6"]
    assert dens[3][4:7] == [">", "1.0", ">"]  # 80 epochs with DeNS: not reached
    figure = draw_curve(plan, rows)
    assert len(figure.axes) == 3 * 6
    line = figure.axes[6].lines[1]  # DeNS, forces of the split id against epochs
    assert line.get_xdata().tolist() == [40, 80] and line.get_ydata().tolist() == [30.5, 20.5]
    assert figure.axes[9].lines[1].get_xdata().tolist() == [50, 100]


@pytest.mark.parametrize(
    "wrong",
    [
        {"curve": "epochs"},
        {"curve": "epochs", "base": {"a": {"config": "config.yml", "at": 1}}},
        {"curve": "epochs", "base": {k: {"config": "config.yml", "at": 1} for k in "ab"}},
        {"base": {"a": {"config": "config.yml", "at": 1}}},
    ],
)
def test_places_on_the_axis(tmp_path, wrong):
    with pytest.raises(DensError, match="curve: epochs"):
        read_plan(write_plan(tmp_path, **wrong))
