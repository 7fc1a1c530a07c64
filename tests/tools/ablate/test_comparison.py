"""Means, spreads, paired differences: by hand."""

import json
import re

import pytest

from dens_ocp.tools.ablate.comparison import (
    collect,
    draw,
    json_table,
    latex_table,
    paired,
    summarise,
    text_table,
)
from dens_ocp.tools.ablate.plan import read_plan
from dens_ocp.tools.ablate.runs import runs_of
from tests.tools.ablate.test_plan import write_plan

BASE = {0: 50.0, 1: 40.0, 2: 60.0}
BETTER = {0: 44.0, 1: 36.0, 2: 52.0, 3: 99.0}


def test_by_hand():
    summary = summarise(BASE)
    assert (summary.mean, summary.spread) == (50.0, 10.0)
    difference = paired(BETTER, BASE)  # -6, -4, -8
    assert (difference.seeds, difference.mean) == (3, -6.0)
    assert difference.error == pytest.approx(2 / 3**0.5)
    assert difference.gain_percent == pytest.approx(12.0)
    # seeds differ by much more than the variants: only pairs show it
    assert difference.error < summary.spread / 3**0.5


def test_few_seeds():
    assert summarise({}) is None and paired({0: 1.0}, {1: 1.0}) is None
    assert summarise({4: 2.0}).spread is None
    assert paired({4: 1.0}, {4: 2.0}).error is None


def test_tables_of_what_is_there(tmp_path):
    plan = read_plan(write_plan(tmp_path, seeds=[0, 1, 2]))
    runs = runs_of(plan, tmp_path, tmp_path / "out")
    forces = {"no_dens": BASE, "dens": BETTER}
    for run in runs:
        if run.variant not in forces:
            continue
        average = {"force_mae_meV_per_A": forces[run.variant][run.seed], "energy_mae_meV": 7.0}
        run.evaluation.path.mkdir(parents=True)
        run.evaluation.scores("json").write_text(
            json.dumps({"scores": {"s2ef": {"average": average}}})
        )
        run.notes.parent.mkdir(exist_ok=True)
        notes = {"seconds": 90.0, "processor_seconds": 150.0, "starts": 1}
        run.notes.write_text(json.dumps(notes))
    rows = collect(plan, runs)
    text = text_table(plan, rows)
    lines = {line.split("  ")[0]: re.sub(" {2,}", "|", line) for line in text.splitlines()}
    assert "|50.00 +- 10.00|-|-|7.0 +- 0.0|" in lines["no DeNS"]
    assert "|44.00 +- 8.00|-6.00 +- 1.15|+12.0|" in lines["dens"] and lines["dens"].endswith(
        "|1.5|2.5"
    )
    assert lines["half"].split("|")[1:3] == ["0", "-"]
    latex = re.sub(" +", " ", latex_table(plan, rows))
    assert r"dens & $44.00 \pm 8.00$ & $-6.00 \pm 1.15$ & $+12.0$" in latex
    rules = [rule for rule in re.findall(r"\\(\w+)", latex) if rule.endswith(("rule", "line"))]
    assert rules == ["toprule", "midrule", "bottomrule"]
    numbers = json.loads(json_table(plan, rows))["rows"][1]["splits"]["average"]
    numbers = numbers["force_mae_meV_per_A"]
    assert numbers[0]["values"] == {"0": 44.0, "1": 36.0, "2": 52.0}
    drawn = draw(plan, rows)
    points = drawn.axes[0].collections[1].get_offsets()
    assert points[:, 0].tolist() == [44.0, 36.0, 52.0]
