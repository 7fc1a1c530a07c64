"""Linear layers through oneDNN against torch's."""

import time

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


ZEN_5 = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\nmodel\t\t: 2\n"


@pytest.mark.parametrize(
    ("described", "capability", "taken"),
    [
        (ZEN_5, "AVX512", True),
        (ZEN_5, "AVX2", False),  # switched off, by ATEN_CPU_CAPABILITY for example
        (ZEN_5.replace("26", "25"), "AVX512", False),  # Zen 4: units of 256 bits
        (ZEN_5.replace("AuthenticAMD", "GenuineIntel"), "AVX512", False),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "AVX512", False),
        (None, "AVX512", False),
    ],
)
def test_the_faster_library_follows_from_the_processor(
    described, capability, taken, monkeypatch, tmp_path
):
    processor = tmp_path / "cpuinfo"
    if described is not None:
        processor.write_text(described)
    monkeypatch.setattr(matrix_products, "_taken", None)
    monkeypatch.setattr(matrix_products, "_PROCESSOR", processor)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    x, weight, bias = tensors(6, 5, 4)
    assert uses_onednn(x, weight, bias) is taken


def test_no_clock_decides(monkeypatch):
    """Two runs on one machine multiply with the same library, whatever else the machine does."""

    def refused():
        raise AssertionError("a clock was read")

    for clock in ("process_time", "perf_counter", "monotonic", "time"):
        monkeypatch.setattr(time, clock, refused)
    monkeypatch.setattr(matrix_products, "_taken", None)
    x, weight, bias = tensors(6, 5, 4)
    assert linear(x, weight, bias).shape == (6, 4)
