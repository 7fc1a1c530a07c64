"""Linear layers through oneDNN against torch's."""

import pytest
import torch

from dens_ocp.models.fast.operations import matrix_products
from dens_ocp.models.fast.operations.matrix_products import (
    linear,
    product,
    uses_onednn,
    weight_gradient,
)


@pytest.fixture(autouse=True)
def through_onednn(monkeypatch):
    """Whatever is faster on this machine."""
    monkeypatch.setattr(matrix_products, "_taken", True)


def tensors(rows, inputs, outputs, dtype=torch.float32):
    generator = torch.Generator().manual_seed(rows + inputs + outputs)
    x, weight, bias = (
        torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()
        for shape in ((rows, inputs), (outputs, inputs), (outputs,))
    )
    return x, weight, bias


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 5, 3), (3, 5, 9), (300, 64, 17), (0, 4, 3)])
def test_values_and_gradients(shape, bias):
    x, weight, b = tensors(*shape)
    inputs = (x, weight, b) if bias else (x, weight)
    found = []
    for function in (torch.nn.functional.linear, linear):
        out = function(*inputs)
        factors = torch.arange(out.numel(), dtype=out.dtype).view(out.shape).cos()
        found.append([out, *torch.autograd.grad((out * factors).sum(), inputs)])
    for a, b in zip(*found, strict=True):
        assert a.shape == b.shape
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def test_more_dimensions_and_one():
    x, weight, bias = tensors(12, 5, 4)
    for shape in ((2, 6, 5), (2, 3, 2, 5)):
        expected = torch.nn.functional.linear(x.view(shape), weight, bias)
        assert torch.allclose(linear(x.view(shape), weight, bias), expected, atol=1e-5)
    assert torch.allclose(linear(x[0], weight), x[0] @ weight.t(), atol=1e-5)


@pytest.mark.parametrize("layout", ["columns", "transposed", "steps", "expanded"])
def test_any_layout_of_either_factor(layout):
    x, weight, _ = (each.detach() for each in tensors(20, 12, 8))

    def laid(matrix):
        wide = torch.cat([matrix, matrix], 1)
        return {
            "columns": wide[:, : matrix.shape[1]],
            "transposed": matrix.t().contiguous().t(),
            "steps": torch.stack([matrix, matrix], 2)[..., 0],
            "expanded": matrix[:1].expand(len(matrix), -1),
        }[layout]

    a, b = laid(x), laid(weight)
    for first, second in ((a, weight), (x, b), (a, b)):
        assert torch.allclose(product(first, second), first @ second.t(), atol=1e-5)


@pytest.mark.parametrize("shape", [(30, 4, 9), (30, 9, 4)])
def test_gradient_of_the_weight_is_summed_over_rows(shape):
    rows, inputs, outputs = shape
    x, gradient = torch.randn(rows, inputs), torch.randn(rows, outputs)
    assert torch.allclose(weight_gradient(gradient, x), gradient.t() @ x, atol=1e-4)


def test_other_dtypes_and_autocast_are_torchs():
    x, weight, bias = tensors(6, 5, 4, torch.float64)
    assert not uses_onednn(x, weight, bias)
    assert torch.equal(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    single = x.float()
    with torch.autocast("cpu", torch.bfloat16):
        assert not uses_onednn(single)
        assert linear(single, weight.float()).dtype == torch.bfloat16


def test_without_onednn(monkeypatch):
    monkeypatch.setattr(matrix_products, "_ONEDNN", None)
    x, weight, bias = tensors(6, 5, 4)
    assert torch.equal(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize(("share", "taken"), [(0.45, True), (0.9, True), (0.95, False), (2, False)])
def test_the_faster_library_is_taken_once(share, taken, monkeypatch):
    shares = iter([share])
    monkeypatch.setattr(matrix_products, "_taken", None)
    monkeypatch.setattr(matrix_products, "_share", lambda: next(shares))
    x, weight, bias = tensors(6, 5, 4)
    assert [uses_onednn(x, weight, bias) for _ in range(3)] == [taken] * 3


def test_shares_are_of_the_least_seconds(monkeypatch):
    times = iter([0, 9, 9, 10, 20, 23, 30, 32, 40, 42, 50, 54])  # warm-up, then two rounds
    for clock in ("process_time", "perf_counter"):
        monkeypatch.setattr(matrix_products.time, clock, lambda: next(times))
    assert matrix_products._share(rounds=2) == 2 / 2
