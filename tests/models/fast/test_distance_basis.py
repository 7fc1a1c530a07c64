"""Gaussians without underflow: the values of fairchem's, and what a gradient sees of them."""

import pytest
import torch
from fairchem.core.models.esen.nn.radial import GaussianSmearing as eSENGaussianSmearing
from fairchem.core.models.scn.smearing import GaussianSmearing

from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.switch import make_fast, make_stock
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model


@pytest.mark.parametrize("stock", [GaussianSmearing, eSENGaussianSmearing])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_and_gradients(stock, dtype):
    module = stock(0.0, 6.0, 512, 2.0).to(dtype)
    distances = torch.linspace(0.7, 6.0, 200, dtype=dtype).requires_grad_()
    factors = torch.arange(512, dtype=dtype).sin()
    found = []
    for change in (make_stock, make_fast):
        change(module)
        assert isinstance(module, FastForm) == (change is make_fast)
        out = module(distances)
        (first,) = torch.autograd.grad((out @ factors).sum(), distances, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), distances)
        found.append((out.detach(), first.detach(), second))
    (expected, *slopes), (out, *others) = found
    assert (expected == 0).any()  # it underflows
    tiny = torch.finfo(dtype).tiny
    assert (out >= tiny).all() and ((out - expected).abs() <= 3 * tiny).all()
    assert torch.equal(out[expected > 3 * tiny], expected[expected > 3 * tiny])
    for slope, other in zip(slopes, others, strict=True):
        assert torch.equal(slope, other)


@pytest.mark.parametrize(
    "config", [SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN], ids=lambda config: config["name"]
)
def test_every_model_has_it(config):
    model = build_model({**config, "fast": True})
    kinds = (GaussianSmearing, eSENGaussianSmearing)
    found = [each for each in model.modules() if isinstance(each, kinds)]
    assert found and all(isinstance(each, FastForm) for each in found)
