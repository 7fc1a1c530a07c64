"""The blocked activation against fairchem's: values and gradients."""

import pytest
import torch
from fairchem.core.models.equiformer_v2.activation import S2Activation, SeparableS2Activation
from fairchem.core.models.equiformer_v2.so3 import SO3_Grid

from dens_ocp.models.fast.operations import launches
from dens_ocp.models.fast.operations.s2_activation import (
    BlockedS2Activation,
    BlockedSeparableS2Activation,
)

LMAX, MMAX, CHANNELS = 4, 2, 5


@pytest.fixture(scope="module")
def grid():
    grid = SO3_Grid(LMAX, MMAX, resolution=14, normalization="component").double()
    return {LMAX: {MMAX: grid}}


def tensors(edges: int, dtype=torch.float64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(edges)
    shapes = [(edges, CHANNELS), (edges, 19, CHANNELS)]
    return [
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_() for shape in shapes
    ]


def results(module, inputs, grid):
    out = module(*inputs, grid)
    weights = torch.arange(out.numel(), dtype=out.dtype).view(out.shape).cos()
    gradients = torch.autograd.grad((out * weights).sum(), inputs, allow_unused=True)
    return [out.detach(), *gradients]


@pytest.mark.parametrize("edges", [0, 1, 7, 64])
@pytest.mark.parametrize("size", [1, 3 * 196 * CHANNELS, 1 << 18], ids=["1", "3", "all"])
def test_separable(grid, edges, size, monkeypatch):
    monkeypatch.setattr(launches, "CPU_VALUES", size)
    inputs = tensors(edges)
    theirs = results(SeparableS2Activation(LMAX, MMAX), inputs, grid)
    ours = results(BlockedSeparableS2Activation(LMAX, MMAX), inputs, grid)
    for a, b in zip(theirs, ours, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_plain_and_float32(grid):
    inputs = tensors(9)[1:]
    theirs = results(S2Activation(LMAX, MMAX), inputs, grid)
    ours = results(BlockedS2Activation(LMAX, MMAX), inputs, grid)
    for a, b in zip(theirs, ours, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    single = [each.detach().float().requires_grad_() for each in inputs]
    for a, b in zip(theirs, results(BlockedS2Activation(LMAX, MMAX), single, grid), strict=True):
        assert torch.allclose(a.float(), b, atol=1e-5)


def test_gradient_is_that_of_finite_differences(grid):
    (x,) = tensors(2)[1:]
    assert torch.autograd.gradcheck(lambda x: BlockedS2Activation(LMAX, MMAX)(x, grid), (x,))


def test_second_derivatives_are_refused(grid):
    (x,) = tensors(2)[1:]
    out = BlockedS2Activation(LMAX, MMAX)(x, grid)
    (first,) = torch.autograd.grad(out.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()


def test_autocast_takes_its_dtype(grid):
    (x,) = tensors(3, torch.float32)[1:]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        theirs = S2Activation(LMAX, MMAX)(x, {LMAX: {MMAX: grid[LMAX][MMAX].float()}})
        ours = BlockedS2Activation(LMAX, MMAX)(x, grid)
    grid[LMAX][MMAX].double()
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.allclose(ours.float(), theirs.float(), atol=0.05)
