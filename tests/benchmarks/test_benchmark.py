"""The benchmark runs, and says what it measured; nothing here looks at how long anything took."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bars, cases, variants
from benchmarks.__main__ import CASES
from benchmarks.measure import Spread, ratios
from tests.runs import environment

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_quick_run_writes_report_json_and_picture(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "eqv2*/oc20/*",
               "--scaling", "--data", "--profile", "--out", tmp_path / "out"]  # fmt: skip
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), environment()["PYTHONPATH"]])}
    done = subprocess.run(
        [*map(str, command)], cwd=tmp_path, env=environment(**path), capture_output=True,
        text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    (case,) = found["cases"]
    assert set(case["variants"]) == {"flat", "hydra", "fairchem-dens", "ours", "fast"}
    assert case["baseline"]["step"] in ("flat", "hydra")
    for name, variant in case["variants"].items():
        rounds = variant["step"]["rounds"]
        assert len(rounds["process"]) == found["settings"]["rounds"]
        for process, user, kernel in zip(
            rounds["process"], rounds["user"], rounds["kernel"], strict=True
        ):
            assert user + kernel == pytest.approx(process) and user > 0
        assert ("corruption" in variant["step"]["phases"]) == (name not in ("flat", "hydra"))
        phases = sum(variant["step"]["phases"].values())
        assert phases == pytest.approx(variant["step"]["seconds"]["user"]["median"], rel=0.5)
        assert variant["memory"]["peak"] > 0 and variant["memory"]["state"] > 0
    stock = case["variants"][case["baseline"]["step"]]["step"]["ratio"]
    assert stock == {"median": 1, "low": 1, "high": 1}
    assert case["counts"]["free"] < case["counts"]["atoms"] < case["counts"]["edges"]
    assert 0 < case["counts"]["corrupted"] <= case["counts"]["free"]
    assert {point["axis"] for point in found["scaling"]} == {"atoms of a structure", "Lmax"}
    assert {row["variant"] for row in found["loading"]} == {"ours, heads alone", "ours, fast"}
    assert [row["label"] for row in found["profiles"]] == [
        each["label"] for each in case["variants"].values()
    ]
    report = (tmp_path / "out" / "report.md").read_text()
    for bar in bars.BARS:
        assert bar.text in report
    for words in ("## Measured on", "AVX", found["machine"]["torch"], "steps.svg", "## Data"):
        assert words in report
    assert str(ROOT) not in report and str(tmp_path) not in report
    assert "<svg" in (tmp_path / "out" / "steps.svg").read_text()


def test_an_unknown_case_is_named_with_those_that_exist(tmp_path):
    from benchmarks.__main__ import main

    with pytest.raises(SystemExit, match="eqv2-12/free/fast"):
        main(["--only", "gemnet*", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_every_bar_is_measured_by_a_run_without_options():
    measured = {f"{c.name}/{v.name}" for c in CASES for v in variants.of(c)}
    for bar in bars.BARS:
        assert f"{bar.case}/{bar.variant}" in measured
        assert bar.against is None or f"{bar.case}/{bar.against}" in measured


def test_sizes_change_only_options_that_the_models_have():
    for case in CASES:
        assert set(case.model()) == set(cases.FAMILIES[case.family]) | {"num_layers"}


def test_ratios_are_taken_round_by_round():
    # a round in which everything takes twice as long changes no ratio
    assert ratios([1.0, 2.0, 1.0], [2.0, 4.0, 2.0]) == Spread(0.5, 0.5, 0.5)
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Spread(3.0, 2.0, 4.0)


def results(ours, memory=None):
    def spread(value):
        return {"median": value, "low": value / 2, "high": value * 2}

    def variant(ratio):
        task = {
            "ratio_to": {"flat": spread(ratio)},
            "ratio_with_kernel_to": {"flat": spread(ratio / 4)},
            "overhead": spread(0.02),
        }
        return {"step": task, "predict": task, **({} if memory is None else {"memory": memory})}

    return [{
        "case": {"name": "eqv2-3/oc20"}, "baseline": {"step": "flat", "predict": "flat"},
        "variants": {"flat": variant(1.0), "ours": variant(ours)},
    }]  # fmt: skip


def test_bars_hold_or_do_not():
    bar = bars.Bar("", 0.85, "eqv2-3/oc20", "ours")
    assert bars.look_up(bar, results(0.8)) == bars.Measured(0.8, 0.4, 1.6, 0.2)
    assert bars.reached(bar, bars.look_up(bar, results(0.8)))
    assert not bars.reached(bar, bars.look_up(bar, results(0.9)))
    throughput = bars.Bar("", 1.8, "eqv2-3/oc20", "ours", "throughput", at_least=True)
    assert bars.look_up(throughput, results(0.5)) == bars.Measured(2.0, 1.0, 4.0, 8.0)
    assert bars.reached(throughput, bars.look_up(throughput, results(0.5)))
    assert bars.look_up(bars.Bar("", 1, "eqv2-12/oc20", "ours"), results(0.5)) is None
    assert bars.look_up(bars.Bar("", 1, "eqv2-3/oc20", "ours", "memory"), results(0.5)) is None
    overhead = bars.Bar("", 0.01, "eqv2-3/oc20", "ours", "overhead")
    assert not bars.reached(overhead, bars.look_up(overhead, results(0.5)))
