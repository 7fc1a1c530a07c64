"""The GPU check: its verdicts, its time, and one rehearsal of all of it on a CPU."""

import doctest
import json
import math
import os
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from fairchem.core.common.utils import get_pbc_distances, radius_graph_pbc
from torch.autograd import DeviceType
from torch_geometric.data import Batch

from benchmarks import batches
from benchmarks.gpu import (
    agreement,
    amp_training,
    bars,
    check,
    findings,
    kernels,
    precision,
    program,
    report,
    scenes,
    step_profile,
)
from benchmarks.gpu.findings import GREEN, NOT_JUDGED, RED, Limit, Record
from benchmarks.gpu.parts import Part, Setting
from dens_ocp.models.fast.operations import sphere_kernel
from tests.benchmarks import failing_parts
from tests.runs import environment

ROOT = Path(__file__).resolve().parents[2]


def setting(folder: Path, seconds: float = 100.0, **options) -> Setting:
    given = {"device_name": "cpu", "quick": True, "folder": folder, **options}
    return Setting(deadline=time.time() + seconds, **given)


def record(folder: Path) -> Record:
    return Record(folder / check.FINDINGS, say=str)


# ---- verdicts ----------------------------------------------------------------------------------


def answers(**changes: torch.Tensor) -> dict[str, torch.Tensor]:
    found = {
        "energy": torch.tensor([[1.0], [2.0]]), "forces": torch.ones(4, 3),
        "noise": torch.ones(4, 3), "gradient": torch.ones(50),
    }  # fmt: skip
    return found | changes


@pytest.mark.parametrize("name", [each.name for each in precision.ALL])
def test_what_is_right_is_green_in_every_precision(name):
    rows = agreement.judge("row", name, answers(), answers())
    assert [row["quantity"] for row in rows] == list(agreement.QUANTITIES)
    assert all(row["verdict"] == GREEN and row["why"] for row in rows)


@pytest.mark.parametrize("name", [each.name for each in precision.ALL])
@pytest.mark.parametrize("quantity", agreement.QUANTITIES)
def test_a_wrong_value_is_red_and_no_other_row_is(name, quantity):
    wrong = answers(**{quantity: 1.3 * answers()[quantity]})
    rows = agreement.judge("row", name, wrong, answers())
    assert {row["quantity"]: row["verdict"] for row in rows} == {
        each: RED if each == quantity else GREEN for each in agreement.QUANTITIES
    }
    assert findings.problems(rows) == [row for row in rows if row["quantity"] == quantity]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_red(value):
    rows = agreement.judge("row", "bfloat16", answers(noise=torch.full((4, 3), value)), answers())
    assert [r["quantity"] for r in rows if r["verdict"] == RED] == ["noise"]
    assert findings.judged("row", "x", value, Limit(1.0, ""))["verdict"] == RED
    losses = [3.0] * 10 + [value] + [1.0] * 10
    assert findings.verdict(amp_training.fall(losses), amp_training.FALL.most) == RED


def test_a_model_that_computes_something_else_is_red(tmp_path):
    some = replace(scenes.without_dropout(scenes.case("eqv2", "3", 2, quick=True)), batch="free")
    with scenes.runners(some, ["ours", "fast"], torch.device("cpu")) as (plain, fast):
        reference = agreement.answers(plain, precision.FLOAT32)
        right = agreement.answers(fast, precision.FLOAT32)
        with torch.no_grad():
            next(fast.trainer.model.parameters()).mul_(1.01)
        wrong = agreement.answers(fast, precision.FLOAT32)
    verdicts = [
        {row["verdict"] for row in agreement.judge("row", "float32", each, reference)}
        for each in (right, wrong)
    ]
    assert verdicts == [{GREEN}, {RED}]


def test_no_neighbour_ties_where_devices_are_compared():
    """The 20th and the 21st neighbour are apart; in cells of 2 x 2 they were one atom's images."""
    some = scenes.case("eqv2", "3", 2, quick=False)
    batch = Batch.from_data_list(batches.records("free", some.structures, some.slab))
    batch.pbc = torch.ones(2, 3, dtype=torch.bool)
    edges, offsets, neighbors = radius_graph_pbc(batch, 12.0, 40)
    found = get_pbc_distances(batch.pos, edges, batch.cell, offsets, neighbors)
    target, distances = found["edge_index"][1], found["distances"]
    for atom in range(int(batch.natoms.sum())):
        ordered = distances[target == atom].sort().values
        assert ordered[20] - ordered[19] > 1e-4


def test_steps_that_overflowed_have_no_line_and_are_counted():
    assert program.halvings({"amp": {"scale": 2048.0}}) == 5
    assert program.halvings({"amp": None}) == 0


def test_a_loss_that_does_not_fall_is_red():
    assert findings.verdict(amp_training.fall([2.0] * 30), amp_training.FALL.most) == RED
    falling = [2.0 - 0.01 * step for step in range(30)]
    assert findings.verdict(amp_training.fall(falling), amp_training.FALL.most) == GREEN


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_kernel_that_computes_something_else_is_red(name):
    def wrong(*inputs: torch.Tensor) -> torch.Tensor:
        return 1.1 * sphere_kernel.plain_silu(*inputs)

    for function, verdict in ((sphere_kernel.plain_silu, GREEN), (wrong, RED)):
        rows = kernels.judge(function, name, "Lmax 4, mmax 2", torch.device("cpu"))
        assert [(row["quantity"], row["verdict"]) for row in rows] == [
            ("value", verdict), ("gradient", verdict),
        ]  # fmt: skip


def row_of_speed(**changes) -> dict:
    return {
        "kind": "speed", "case": "eqv2-paper/oc20", "structures": 4, "precision": "TF32",
        "task": "step", "variant": "fast", "ratio": {"median": 0.59}, "memory_ratio": 0.56,
        **changes,
    }  # fmt: skip


def test_bars_are_of_fast_steps_and_judged_only_where_they_are_meant():
    found = bars.of(row_of_speed(), judges=True)
    assert [(row["quantity"], row["verdict"]) for row in found] == [
        ("time", GREEN), ("peak memory", RED),
    ]  # fmt: skip
    assert {row["verdict"] for row in bars.of(row_of_speed(), judges=False)} == {NOT_JUDGED}
    for other in ({"variant": "ours"}, {"task": "predict"}, {"variant": "flat"}):
        assert bars.of(row_of_speed(**other), judges=True) == []


def test_out_of_memory_is_no_problem_and_another_error_of_ours_is():
    rows = [
        {"kind": "speed", "ours": ours, "error": error}
        for ours in (False, True) for error in ("out of memory", "RuntimeError: dtype")
    ]  # fmt: skip
    assert findings.problems(rows) == rows[-1:]


# ---- the profile -------------------------------------------------------------------------------


@dataclass
class Range:
    start: float
    end: float

    def elapsed_us(self) -> float:
        return self.end - self.start


@dataclass
class Event:
    """What :mod:`benchmarks.gpu.step_profile` reads of an event of torch's profiler."""

    name: str
    device_type: DeviceType
    time_range: Range
    is_user_annotation: bool = False


def test_gaps_launches_and_waits_are_counted():
    def on_gpu(name, start, end, **options):
        return Event(name, DeviceType.CUDA, Range(start, end), **options)

    def on_host(name):
        return Event(name, DeviceType.CPU, Range(0, 1))

    found = step_profile.summary(
        [
            on_gpu("gemm", 0, 300), on_gpu("gemm", 200, 400), on_gpu("copy", 600, 700),
            on_gpu("Optimizer.step#AdamW.step", 0, 1000, is_user_annotation=True),
            on_host("cudaLaunchKernel"), on_host("cuLaunchKernelEx"), on_host("aten::mm"),
            on_host("cudaStreamSynchronize"), on_host("cudaDeviceSynchronize"),
        ],
        wall_ms=1.0,
    )  # fmt: skip
    assert found["busy_ms"] == pytest.approx(0.5) and found["gap_share"] == pytest.approx(0.5)
    assert (found["launches"], found["waits"]) == (2, 1)
    assert [(k["name"], k["count"]) for k in found["kernels"]] == [("gemm", 2), ("copy", 1)]


# ---- order and time ----------------------------------------------------------------------------


def test_most_important_parts_come_first():
    names = [part.name for part in check.PARTS]
    first = ["agreement, EquiformerV2", "agreement, eSCN", "kernels", "training with AMP"]
    assert names[:4] == first
    assert names[4:7] == ["bars", "program", "profile"]
    assert len(set(names)) == len(names)
    assert sum(part.seconds for part in check.PARTS) <= check.parser().get_default("seconds")


def test_parts_that_no_longer_fit_are_skipped_and_listed(tmp_path):
    kept = record(tmp_path)
    check.run(check.PARTS, setting(tmp_path, seconds=-1), kept)
    assert [f["what"] for f in kept.findings] == [part.name for part in check.PARTS]
    assert {f["kind"] for f in kept.findings} == {"skipped"}
    lines = [json.loads(line) for line in (tmp_path / check.FINDINGS).read_text().splitlines()]
    assert lines == kept.findings


def test_a_rehearsal_needs_less_time_than_a_gpu(tmp_path):
    assert setting(tmp_path, seconds=10).allows(60)
    assert not setting(tmp_path, seconds=10, quick=False).allows(60)
    assert setting(tmp_path, seconds=70, quick=False).allows(60)


@pytest.mark.slow
def test_a_part_that_breaks_hangs_or_dies_does_not_keep_the_next_from_running(tmp_path):
    parts = [
        Part("broken", failing_parts.raising, 0),
        Part("hanging", failing_parts.hanging, 0, most=1.0),
        Part("dying", failing_parts.dying, 0),
        Part("working", failing_parts.working, 0, options={"word": "works"}),
    ]
    kept = record(tmp_path)
    check.run(parts, setting(tmp_path, seconds=300), kept)
    said = [(f["part"], f["kind"]) for f in kept.findings if f["kind"] != "time"]
    assert said == [
        ("broken", "verdict"), ("broken", "failed"), ("hanging", "verdict"),
        ("hanging", "failed"), ("dying", "failed"), ("working", "verdict"),
    ]  # fmt: skip
    errors = {f["part"]: f["error"] for f in kept.findings if f["kind"] == "failed"}
    assert errors["broken"] == "ValueError: this part is broken"
    assert "took too long" in errors["hanging"] and "-9" in errors["dying"]


@pytest.mark.slow
def test_a_part_is_broken_off_at_the_end_of_the_time_and_is_no_failure(tmp_path):
    kept = record(tmp_path)
    parts = [Part(name, failing_parts.hanging, 0) for name in ("hanging", "late")]
    check.run(parts, setting(tmp_path, seconds=20), kept)
    assert [(f["part"], f["kind"]) for f in kept.findings] == [
        ("hanging", "verdict"), ("hanging", "skipped"), ("hanging", "time"), ("late", "skipped"),
    ]  # fmt: skip
    assert not findings.problems(kept.findings)


# ---- the command -------------------------------------------------------------------------------


def test_mistakes_name_the_option_and_what_to_do(tmp_path):
    with pytest.raises(SystemExit, match="--only gemnet.*there are agreement"):
        check.main(["--only", "gemnet", "--out", str(tmp_path / "out")])
    if not torch.cuda.is_available():
        with pytest.raises(SystemExit, match="--device cpu --quick"):
            check.main(["--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_report_shows_what_is_red_and_what_was_skipped():
    found = [
        {"kind": "machine", "device": "cuda", "quick": False, "torch": "2.11.0"},
        findings.judged("eqv2, TF32", "forces", 0.5, Limit(0.01, "because")),
        findings.skipped("eSCN", "3 s left"),
        findings.failed("compile", "a | b\nc"),
        row_of_speed(variant="flat", label="stock", error="out of memory", ours=False),
        *bars.of(row_of_speed(), judges=True),
    ]
    text = report.markdown(found, "speed.svg")
    assert "Rows: 1 green, 2 red, 0 not judged. Parts that failed: 1. Skipped: 1." in text
    assert "| eqv2, TF32 | forces | 0.5 | 0.01 | **red** | because |" in text
    assert "- eSCN: 3 s left" in text and "a \\| b c" in text and "out of memory" in text
    assert "ehearsal" not in text


def test_examples_in_the_code_are_right():
    for module in (findings, agreement, amp_training, step_profile, report):
        assert doctest.testmod(module).failed == 0


@pytest.mark.slow
def test_a_rehearsal_on_the_cpu_runs_every_part_and_is_green(tmp_path):
    path = {"PYTHONPATH": os.pathsep.join([str(ROOT), environment()["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "gpu", "--device", "cpu", "--quick", "--out", "out"],
        cwd=tmp_path, env=environment(**path), capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    out = tmp_path / "out"
    found = [json.loads(line) for line in (out / check.FINDINGS).read_text().splitlines()]
    assert json.loads(done.stdout.splitlines()[1]) == found[1]
    for part in check.PARTS:
        own = {f["kind"] for f in found if f["part"] == part.name}
        assert own - {"time"}, part.name
        assert "failed" not in own
    rows = [f for f in found if f["kind"] == "verdict"]
    assert {f["verdict"] for f in rows} == {GREEN, NOT_JUDGED}
    assert all("not on a CPU" in f["why"] for f in rows if f["verdict"] == NOT_JUDGED)
    judged = {(f["row"], f["quantity"]) for f in rows if f["verdict"] == GREEN}
    for family in ("eqv2", "escn"):
        for quantity in agreement.QUANTITIES:
            assert (f"{family}, ours, fast, bfloat16", quantity) in judged
    assert {"program, kill", "program, resume", "program, predict"} <= {row for row, _ in judged}
    assert {f["verdict"] for f in found if f["kind"] == "bar"} == {NOT_JUDGED}
    assert {f["launches"] for f in found if f["kind"] == "profile"} == {None}
    text = (out / check.REPORT).read_text()
    assert report.REHEARSAL in text and str(tmp_path) not in text and str(ROOT) not in text
    assert "<svg" in (out / check.PICTURE).read_text()


@pytest.mark.parametrize("name", ["ours", "fast"])
def test_a_half_precision_reaches_the_model(name):
    """Else its rows would be green for float32 with another name."""
    with scenes.runners(scenes.case("eqv2", "3", 2, True), [name], torch.device("cpu")) as (
        runner,
    ):
        single = agreement.answers(runner, precision.FLOAT32)
        half = agreement.answers(runner, precision.BFLOAT16)
    assert agreement.relative(half["forces"], single["forces"]) > 1e-4
