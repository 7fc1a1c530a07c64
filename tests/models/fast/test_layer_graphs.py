"""Layers from a graph: a larger batch of fixed size gives the same numbers.

The graph itself needs a GPU (`python -m benchmarks gpu`); here the layers are computed where it
would be replayed.
"""

import copy

import pytest
import torch
from fairchem.core.common import gp_utils

from dens_ocp.models.fast import layer_graphs
from dens_ocp.models.fast.graph_recording import padded
from dens_ocp.models.fast.operations import launches
from dens_ocp.models.fast.operations.drop_path import FewLaunchesDropPath
from tests.conftest import SMALL_EQUIFORMER, build_model
from tests.models.fast.test_models import CONFIGS, compare
from tests.models.test_chosen_atoms import double, masks, run
from tests.models.test_models import corrupted
from tests.plans import attach_scored

GRAPHS = {"fast": True, "cuda_graphs": True}
NAMES = [
    name
    for name in CONFIGS
    if name.startswith("eqv2") and name not in ("eqv2 with dropout", "eqv2 gate")
]


@pytest.fixture
def recorded(monkeypatch):
    """The arguments of each replay."""
    monkeypatch.setattr(launches, "FORCED", True)
    monkeypatch.setattr(layer_graphs, "RECORDED_ON", {"cpu"})
    calls = []

    def record(layers, example, pool):
        def replay(*inputs):
            assert [each.shape for each in inputs] == [each.shape for each in example]
            for own, given in zip(example, inputs, strict=True):
                assert given.requires_grad or given.data_ptr() == own.data_ptr()
            calls.append(inputs)
            return layers(*inputs)

        return replay

    monkeypatch.setattr(layer_graphs, "record", record)
    return calls


def answers(model, batch):
    data = corrupted(batch.clone())
    mask = masks(data)["free"]
    attach_scored(data, mask)
    with double(model, data.clone()) as model:
        for name in ("pos", "cell", "forces", "noise_vec", "sigmas"):
            data[name] = data[name].double()
        return run(model, data, mask)


@pytest.mark.parametrize("name", NAMES)
def test_same_numbers(name, batch, recorded):
    model = build_model({**CONFIGS[name], **GRAPHS}).train()
    plain = build_model({**CONFIGS[name], "fast": True}).train()
    compare(answers(plain, batch), answers(model, batch))
    checkpoints = CONFIGS[name].get("activation_checkpoint", False)
    assert len(recorded) == (0 if checkpoints else 1)


def test_under_autocast(batch, recorded):
    """The backward, which runs outside autocast, too."""
    data, found = corrupted(batch), []
    attach_scored(data, masks(data)["free"])
    for graphs in (False, True):
        model = build_model({**SMALL_EQUIFORMER, "fast": True, "cuda_graphs": graphs}).train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(data.clone())
            loss = outputs["energy"].sum() + outputs["forces"].float().pow(2).sum()
        loss.backward()
        gradients = [each.grad for each in model.blocks.parameters() if each.grad is not None]
        found.append(torch.cat([each.flatten() for each in gradients]))
    assert len(recorded) == 1 and recorded[0][0].dtype == torch.float32
    assert torch.allclose(*found, rtol=0.05, atol=0.02 * float(found[0].abs().max()))


def test_a_smaller_batch_sees_nothing_of_a_larger_one(batch, recorded, monkeypatch):
    """All sizes share their memory, and one size serves several batches."""
    monkeypatch.setattr(layer_graphs, "padded", lambda count: 4096)
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS}).train()
    plain = build_model({**SMALL_EQUIFORMER, "fast": True}).train()
    smaller = type(batch).from_data_list(batch.to_data_list()[1:])
    for each in (batch, smaller, batch):
        compare(answers(plain, each), answers(model, each))
    assert len(recorded) == 3 and len(model.layer_graphs.recorded) == 1


def test_a_graph_whose_backward_has_not_been_is_left_alone(batch, recorded):
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS}).train()
    data = corrupted(batch)
    attach_scored(data, masks(data)["free"])
    first, second = model(data.clone()), model(data.clone())
    assert len(recorded) == 1
    assert torch.allclose(first["energy"], second["energy"], atol=1e-6)
    first["energy"].sum().backward()
    model(data.clone())
    assert len(recorded) == 2


def test_without_gradients_in_evaluation_and_without_the_option(batch, recorded):
    data = corrupted(batch)
    attach_scored(data, masks(data)["free"])
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS})
    model.eval()(data.clone())
    with torch.no_grad():
        model.train()(data.clone())
    build_model({**SMALL_EQUIFORMER, **GRAPHS, "fast": False}).train()(data.clone())
    build_model({**SMALL_EQUIFORMER, "fast": True}).train()(data.clone())
    assert not recorded


def test_what_cannot_berecorded_is_computed(batch, recorded, monkeypatch, caplog):
    def refuse(*_):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(layer_graphs, "record", refuse)
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS}).train()
    plain = build_model({**SMALL_EQUIFORMER, "fast": True}).train()
    for _ in range(2):
        compare(answers(plain, batch), answers(model, batch))
    assert caplog.text.count("without CUDA graphs: operation not permitted") == 1


def test_no_more_sizes_than_agreed(batch, recorded, monkeypatch):
    monkeypatch.setattr(layer_graphs, "MOST", 1)
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS}).train()
    smaller = type(batch).from_data_list(batch.to_data_list()[1:2])
    for each in (batch, smaller):
        answers(model, each)
    assert len(recorded) == 1


def test_a_copy_has_its_own_graphs(batch, recorded):
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS}).train()
    answers(model, batch)
    other = copy.deepcopy(model)
    assert other.layer_graphs._model is other and not other.layer_graphs.recorded


def test_of_frozen_layers(batch, recorded):
    """Nothing wants a gradient of them: no backward is waited for."""
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS}).train().requires_grad_(False)
    model.noise_head.requires_grad_(True)
    data = corrupted(batch)
    attach_scored(data, masks(data)["free"])
    for _ in range(2):
        model(data.clone())["noise"].sum().backward()
    assert len(recorded) == 2


def test_memory_is_given_back(batch, recorded):
    model = build_model({**SMALL_EQUIFORMER, **GRAPHS}).train()
    answers(model, batch)
    graphs = model.layer_graphs
    assert graphs.bytes_read() > 0
    graphs.forget()
    assert graphs.bytes_read() == 0 and not graphs.recorded
    answers(model, batch)
    assert len(recorded) == 2


def test_sizes():
    for count in range(1, 5000):
        assert count < padded(count) <= max(count * 9 / 8 + 1, count + 8)
    assert len({padded(count) for count in range(512, 1024)}) <= 9


class TestDropPath:
    def module(self, train=True):
        found = FewLaunchesDropPath.stock()(0.25)
        found.__class__ = FewLaunchesDropPath
        return found.train(train)

    def test_a_structure_is_kept_or_dropped_as_a_whole(self, monkeypatch):
        monkeypatch.setattr(launches, "FORCED", True)
        batch = torch.arange(4000) // 2
        torch.manual_seed(0)
        out = self.module()(torch.ones(4000, 1, 1), batch).view(2000, 2)
        assert torch.equal(out[:, 0], out[:, 1])
        assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
        assert abs(float(out.mean()) - 1.0) < 0.05

    def test_a_rank_of_a_group_may_have_fewer_atoms_than_structures(self, monkeypatch):
        monkeypatch.setattr(launches, "FORCED", True)
        monkeypatch.setattr(gp_utils, "initialized", lambda: True)
        out = self.module()(torch.ones(3, 1, 1), torch.tensor([7, 8, 9]))
        assert out.shape == (3, 1, 1)

    def test_nothing_is_dropped_in_evaluation(self, monkeypatch):
        monkeypatch.setattr(launches, "FORCED", True)
        x = torch.randn(6, 4, 2)
        assert torch.equal(self.module(train=False)(x, torch.arange(6) // 2), x)
