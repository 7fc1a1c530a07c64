"""Heads computed where they are looked at: same values, same gradients."""

from contextlib import contextmanager

import pytest
import torch

from dens_ocp.dens.step_plan import read
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, build_model
from tests.models.test_models import corrupted
from tests.plans import attach_scored

MODELS = {
    "eqv2": SMALL_EQUIFORMER,
    "eqv2-checkpointed": {**SMALL_EQUIFORMER, "activation_checkpoint": True},
    "escn": SMALL_ESCN,
}


def masks(batch) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    count = batch.pos.shape[0]
    return {
        "free": batch.fixed == 0,
        "random": torch.rand(count, generator=generator) < 0.3,
        "one": torch.arange(count) == 5,
        "none": torch.zeros(count, dtype=torch.bool),
        "all": torch.ones(count, dtype=torch.bool),
    }


def run(model, batch, mask):
    """Outputs and gradients of a loss on the atoms of ``mask``, in float64."""
    model.zero_grad()
    torch.manual_seed(0)
    outputs = model(batch)
    noisy = read(batch).noise_mask
    forces = outputs["forces"][mask & ~noisy]
    noise = outputs["noise"][mask & noisy] if "noise" in outputs else forces[:0]
    weights = torch.arange(1.0, 1 + forces.numel(), dtype=forces.dtype).view(forces.shape).cos()
    loss = outputs["energy"].sum() + (forces * weights).sum() + 3 * noise.pow(2).sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    return outputs["energy"].detach(), forces.detach(), noise.detach(), gradients


@contextmanager
def double(model, data):
    """fairchem finds neighbours in float32 only; everything after that runs in float64 here."""
    generate = model.generate_graph

    def graph_in_double(batch, **options):
        batch = batch.clone()
        batch.pos, batch.cell = batch.pos.float(), batch.cell.float()
        torch.set_default_dtype(torch.float32)
        graph = generate(batch, **options)
        torch.set_default_dtype(torch.float64)
        fields = graph if isinstance(graph, dict) else vars(graph)  # eSEN's is a dict
        fields["edge_distance_vec"] = fields["edge_distance_vec"].double()
        fields["edge_distance"] = fields["edge_distance_vec"].norm(dim=1)
        return graph

    model.generate_graph = graph_in_double
    for name in ("pos", "cell", "forces", "noise_vec", "sigmas"):
        if name in data:
            data[name] = data[name].double()
    torch.set_default_dtype(torch.float64)
    try:
        yield model.double()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("kind", ["free", "random", "one", "none", "all"])
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_chosen_atoms_equal_the_full_computation(config, kind, batch):
    data = corrupted(batch)
    mask = masks(data)[kind]
    with double(build_model(config).train(), data) as model:
        whole = run(model, data.clone(), mask)
        attach_scored(data, mask)
        part = run(model, data, mask)
    for name, a, b in zip(("energy", "forces", "noise"), whole, part, strict=False):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12), name
    for name, gradient in whole[3].items():
        scale = gradient.abs().max().clamp(min=1e-12)
        assert (part[3][name] - gradient).abs().max() / scale < 1e-6, name


@pytest.mark.parametrize("config", [SMALL_EQUIFORMER, SMALL_ESCN], ids=["eqv2", "escn"])
def test_other_rows_are_zero(config, batch):
    model = build_model(config).eval()
    mask = batch.fixed == 0
    with torch.no_grad():
        torch.manual_seed(0)
        whole = model(batch.clone())["forces"]
        attach_scored(batch, mask)
        torch.manual_seed(0)
        part = model(batch)["forces"]
    assert torch.allclose(part[mask], whole[mask], atol=1e-6)
    assert (part[~mask] == 0).all() and (whole[~mask] != 0).any()


def test_the_edges_into_other_atoms_are_left_out(batch):
    """The block sees no edge more than it has to."""
    model = build_model(SMALL_EQUIFORMER).train()
    data = corrupted(batch)
    attach_scored(data, data.fixed == 0)
    seen = {}
    for name in ("force_head", "noise_head"):
        block = getattr(model, name).force_block
        block.register_forward_pre_hook(
            lambda module, inputs, name=name: seen.update({name: inputs[3]})
        )
    model(data)
    noisy, free = data.noise_mask, data.fixed == 0
    assert set(seen["noise_head"][1].tolist()) <= set(torch.nonzero(noisy)[:, 0].tolist())
    assert set(seen["force_head"][1].tolist()) <= set(torch.nonzero(free & ~noisy)[:, 0].tolist())
    assert seen["noise_head"].shape[1] > 0 and seen["force_head"].shape[1] > 0
