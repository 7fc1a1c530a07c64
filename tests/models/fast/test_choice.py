"""``fast: auto`` where it is settled by measurement (on GPUs; here the CPU stands for one)."""

import logging

import pytest
import torch

from dens_ocp.models.fast import choice
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model

CPU = torch.device("cpu")
MODELS = [SMALL_EQUIFORMER, {**SMALL_ESCN, "num_sphere_samples": 64}, SMALL_ESEN]


def classes(model):
    """By name; but for the rotations that eSCN makes in each forward."""
    modules = model.named_modules()
    return {name: type(module) for name, module in modules if "SO3_edge_rot" not in name}


@pytest.fixture
def clock(monkeypatch):
    """Seconds that a run takes in the fast form and in fairchem's, as the clock would tell."""
    taken = {True: 1.0, False: 2.0}

    def timed(run, device):
        run()
        return taken[clock.model.force_embedding.harmonics.__module__.startswith("dens_ocp.models")]

    def clock():
        return taken

    monkeypatch.setattr(choice, "_timed", timed)
    return clock


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config["name"])
def test_a_model_goes_back_and_forth(config, batch):
    stock, fast = (build_model({**config, "fast": each}).eval() for each in (False, True))
    model = build_model({**config, "fast": "auto"}).eval()
    for form, other in ((True, fast), (False, stock), (True, fast), (False, stock)):
        model.take_form(form)
        assert classes(model) == classes(other)
        outputs = []
        for each in (model, other):
            torch.manual_seed(0)
            outputs.append(each(batch.clone()))
        for name, value in outputs[0].items():
            assert torch.equal(value, outputs[1][name])


def test_forms_take_turns_and_the_least_counts(monkeypatch):
    model = build_model({**SMALL_EQUIFORMER, "fast": "auto"})
    fast_form = classes(model)
    forms = []
    times = iter([9, 9, 5, 7, 4, 8, 6, 3])  # the first of each form warms up
    monkeypatch.setattr(choice, "_timed", lambda run, device: (run(), next(times))[1])
    found = choice.seconds(model, lambda: forms.append(classes(model) == fast_form), CPU)
    assert forms == [True, False] * (1 + choice.ROUNDS)
    assert found == (4, 3)
    assert classes(model) == fast_form


def test_a_form_without_room_is_not_taken():
    model = build_model({**SMALL_EQUIFORMER, "fast": "auto"})
    fast_form, runs = classes(model), []

    def run():
        runs.append(classes(model) == fast_form)
        if not runs[-1]:
            raise torch.cuda.OutOfMemoryError

    fast, stock = choice.seconds(model, run, CPU)
    assert 0 < fast < stock == float("inf")
    assert runs.count(False) == 1 and runs.count(True) == 1 + choice.ROUNDS
    assert "more memory than the device has" in choice.said(fast, stock)


@pytest.mark.parametrize("config", MODELS, ids=lambda config: config["name"])
@pytest.mark.parametrize("faster", ["fast", "stock"])
def test_evaluation_settles_it_with_the_first_batch(
    config, faster, batch, clock, monkeypatch, caplog
):
    monkeypatch.setattr(choice, "TIMED_ON", {"cpu"})
    model = clock.model = build_model({**config, "fast": "auto"}).eval()
    if faster == "stock":
        clock().update({True: 2.0, False: 1.0})
    caplog.set_level(logging.INFO)
    model(batch.clone())
    expected = build_model({**config, "fast": faster == "fast"})
    assert classes(model) == classes(expected)
    assert caplog.text.count("model.fast: auto") == 1
    assert {"fast": "the fast path is used", "stock": "the stock path is used"}[
        faster
    ] in caplog.text
    model(batch.clone())
    assert caplog.text.count("model.fast: auto") == 1


@pytest.mark.parametrize("fast", [True, False])
def test_a_form_that_is_named_is_kept(fast, batch, monkeypatch, caplog):
    monkeypatch.setattr(choice, "TIMED_ON", {"cpu"})
    caplog.set_level(logging.INFO)
    model = build_model({**SMALL_EQUIFORMER, "fast": fast}).eval()
    before = classes(model)
    model(batch.clone())
    assert classes(model) == before and "model.fast" not in caplog.text
