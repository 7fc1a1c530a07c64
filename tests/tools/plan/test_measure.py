"""What is measured: FLOP and memory grow as the fit says; the paper's runs are what they claim."""

from __future__ import annotations

import gc

import pytest
import torch
from torch_geometric.data import Batch

from dens_ocp.settings import run_config
from dens_ocp.tools.config_model import build_model
from dens_ocp.tools.plan import paper_runs
from dens_ocp.tools.plan.estimate import speed_from_paper
from dens_ocp.tools.plan.measure import PeakBytes, extended, measure, structure
from dens_ocp.tools.plan.paper_runs import BAND, GPUS, RATE, V100
from tests.conftest import ROOT, SMALL_EQUIFORMER, SMALL_ESCN

CPU = torch.device("cpu")


def test_peak_bytes_by_hand():
    x = torch.zeros(1000, requires_grad=True)
    with PeakBytes() as counter:
        counter.ignore([x])
        y = x * 2  # 4000 bytes
        z = y.exp()  # 4000, kept for backward
        del y
        w = z.view(10, 100)  # no memory of its own
        assert counter.live == 4000
        u = w + 1  # 4000
    assert counter.peak == 8000 and counter.live == 8000
    del z, w, u
    gc.collect()
    assert counter.live == 0


@pytest.mark.parametrize("model", [SMALL_EQUIFORMER, SMALL_ESCN], ids=lambda model: model["name"])
def test_two_depths_predict_a_third_and_other_sizes(model):
    degree = model["max_neighbors"]
    few = measure(model, degree, CPU, sizes=(4, 8), depths=(1, 2), repeats=1, progress=False)
    more = measure(model, degree, CPU, sizes=(6, 12), depths=(3, 4), repeats=1, progress=False)
    for case, flops in more.flops.items():
        assert extended(few.flops, *case) == pytest.approx(flops, rel=0.01)
        assert extended(few.peak_bytes, *case) == pytest.approx(more.peak_bytes[case], rel=0.1)
        assert more.seconds[case] > 0


def test_structures_have_as_many_edges_as_the_fit_assumes():
    batch = Batch.from_data_list([structure(4), structure(8, seed=1)])
    model = build_model(SMALL_EQUIFORMER, stock=True)
    graph = model.generate_graph(batch)
    assert graph.edge_index.shape[1] == 12 * SMALL_EQUIFORMER["max_neighbors"]


@pytest.mark.parametrize("run", paper_runs.RUNS, ids=lambda run: run.recipe)
def test_runs_are_those_of_the_recipes(run):
    config = run_config.read(ROOT / run.recipe, [])
    assert paper_runs.matching(config) == run
    assert config["optim"]["batch_size"] == run.batch
    assert config["optim"]["max_epochs"] == run.epochs
    header = (ROOT / run.recipe).read_text()
    assert f"{run.gpus} V100" in header
    if run.hours > 2000 or run.epochs == 12:
        assert f"{run.hours:.0f} GPU-hours" in header.replace(",", "")
    assert paper_runs.matching({**config, "optim": {**config["optim"], "max_epochs": 7}}) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "degree", "within"),
    # OC22's 23.4 neighbours of an atom are counted as 23
    [(0, 20, 0.005), (1, round(paper_runs.LOOSE_DEGREE), 0.02), (4, 20, 0.005), (5, 20, 0.005)],
)
def test_flops_of_the_recipes_are_counted_again(recipe, degree, within):
    run = paper_runs.RUNS[recipe]
    model = run_config.read(ROOT / run.recipe, [])["model"]
    measured = measure(model, degree, CPU, sizes=(2, 4), repeats=1, progress=False)
    counted = extended(measured.flops, run.layers, paper_runs.ATOMS)
    assert counted == pytest.approx(run.flops, rel=within)


def test_calibration():
    twelve, oc22, twenty, _, escn, all_md = paper_runs.RUNS
    # 1501 h x 3600 / 24 million structures = 0.2252 s; 1.491 TFLOP in that: 6.62 TFLOP/s
    assert twelve.seconds == pytest.approx(0.22515, rel=1e-4)
    assert twelve.rate == pytest.approx(6.622e12, rel=1e-3)
    assert RATE == pytest.approx((twelve.rate + oc22.rate) / 2)
    assert RATE / V100.flops == pytest.approx(0.42, abs=0.01)
    assert {run.role for run in (twelve, oc22)} == {"calibrates"}
    # the tests, and what docs/planning.md says of them
    assert RATE / twenty.rate == pytest.approx(1, abs=0.01)
    assert RATE / escn.rate == pytest.approx(1.09, abs=0.01)
    assert RATE / all_md.rate == pytest.approx(2.2, abs=0.02)
    low, high = BAND
    assert low < 1 < high and all(low <= RATE / run.rate <= high for run in paper_runs.RUNS)


def test_the_range_holds_the_paper_and_widens_for_other_gpus():
    for run in paper_runs.RUNS:
        speed = speed_from_paper(run.flops, V100)
        assert speed["low"] <= run.seconds <= speed["high"] * 1.0001
    here, there = (speed_from_paper(1e12, GPUS[name]) for name in ("v100", "h200"))
    assert there["expected"] < here["expected"]
    assert there["high"] / there["low"] > here["high"] / here["low"]
