"""Parts in their form for GPUs against what they stand for: values and gradients in float64."""

import pytest
import torch
from fairchem.core.models.equiformer_v2.edge_rot_mat import init_edge_rot_mat
from fairchem.core.models.equiformer_v2.layer_norm import (
    EquivariantLayerNormArraySphericalHarmonics,
)
from fairchem.core.models.equiformer_v2.so3 import SO3_Embedding, SO3_LinearV2, SO3_Rotation
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.utils import softmax

from dens_ocp.dens import force_encoding
from dens_ocp.models.fast.operations import launches, matrix_products
from dens_ocp.models.fast.operations.edge_softmax import edge_softmax
from dens_ocp.models.fast.operations.layer_norm import FewLaunchesLayerNorm
from dens_ocp.models.fast.operations.so2_convolution import _ComplexLinear, complex_linear
from dens_ocp.models.fast.operations.so3_linear import so3_linear
from dens_ocp.models.fast.rotation import spherical_harmonics, wigner_matrices
from tests.conftest import SMALL_EQUIFORMER, build_model

DOUBLE = {"dtype": torch.float64}


@pytest.fixture(autouse=True)
def few_launches(monkeypatch):
    monkeypatch.setattr(launches, "FORCED", True)


def with_gradients(function, *inputs):
    inputs = [each.detach().clone().requires_grad_() for each in inputs]
    out = function(*inputs)
    weights = torch.arange(out.numel(), dtype=out.dtype).view(out.shape).cos()
    return [out, *torch.autograd.grad((out * weights).sum(), inputs)]


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("lmax", [1, 3])
def test_layer_norm(lmax):
    theirs = EquivariantLayerNormArraySphericalHarmonics(lmax, 6).double()
    torch.nn.init.normal_(theirs.affine_weight)
    torch.nn.init.normal_(theirs.norm_l0.weight)
    x = torch.randn(5, (lmax + 1) ** 2, 6, **DOUBLE)
    expected = with_gradients(theirs, x)
    wanted = [p.grad for p in gradients_of(theirs, x)]
    theirs.__class__ = FewLaunchesLayerNorm
    assert_same(with_gradients(theirs, x), expected)
    assert_same([p.grad for p in gradients_of(theirs, x)], wanted)


def gradients_of(module, x):
    module.zero_grad()
    module(x).cos().sum().backward()
    return [torch.nn.Parameter(p.detach()) if p.grad is None else p for p in copies(module)]


def copies(module):
    found = []
    for parameter in module.parameters():
        copy = parameter.detach().clone()
        copy.grad = parameter.grad.clone()
        found.append(copy)
    return found


def test_softmax_over_edges():
    target = torch.tensor([0, 2, 2, 0, 0, 3])  # an atom without edges too
    logits = torch.randn(6, 2, **DOUBLE) * 50
    assert_same(
        with_gradients(lambda x: edge_softmax(x, target, 4), logits),
        with_gradients(lambda x: softmax(x, target, num_nodes=4), logits),
    )


def test_so3_linear():
    layer = SO3_LinearV2(3, 4, lmax=2).double()
    torch.nn.init.normal_(layer.bias)

    def theirs(x, weight, bias):
        embedding = SO3_Embedding(0, [2], 3, device=x.device, dtype=x.dtype)
        embedding.set_embedding(x)
        parameters = {"weight": weight, "bias": bias}
        return torch.func.functional_call(layer, parameters, (embedding,)).embedding

    def ours(x, weight, bias):
        own = SO3_LinearV2(3, 4, lmax=2)
        del own.weight, own.bias
        own.weight, own.bias = weight, bias
        return so3_linear(own, x)

    x = torch.randn(5, 9, 3, **DOUBLE)
    inputs = (x, layer.weight, layer.bias)
    assert_same(with_gradients(ours, *inputs), with_gradients(theirs, *inputs))


@pytest.mark.parametrize("edges", [0, 1, 5])
@pytest.mark.parametrize("few", [True, False])
def test_complex_linear(edges, few, monkeypatch):
    monkeypatch.setattr(launches, "FORCED", few)
    inputs = torch.randn(edges, 8, **DOUBLE), torch.randn(6, 4, **DOUBLE)
    assert_same(
        with_gradients(complex_linear, *inputs), with_gradients(_ComplexLinear.apply, *inputs)
    )


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_half_precision_and_onednn_keep_the_four_products(onednn, half, monkeypatch):
    """Sums of parts would be rounded in the one, and take as long as the product in the other."""
    monkeypatch.setattr(launches, "FORCED", False)
    monkeypatch.setattr(matrix_products, "_taken", onednn)
    x, weight = torch.randn(5, 8, requires_grad=True), torch.randn(6, 4)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        out = complex_linear(x, weight)
    name = type(out.grad_fn).__name__
    by_three = not half and not (onednn and matrix_products.uses_onednn(x, weight))
    assert name.startswith("_ComplexLinearByThree" if by_three else "_ComplexLinearBackward")
    real = torch.complex(*x.chunk(2, 1)) @ torch.complex(*weight.chunk(2)).t()
    exact = torch.cat([real.real, real.imag], 1)
    assert torch.allclose(out.float(), exact, atol=0.1 if half else 1e-5)


def test_wigner_matrices(monkeypatch):
    rotations = init_edge_rot_mat(torch.randn(20, 3, **DOUBLE))
    monkeypatch.setattr(torch, "zeros", lambda *a, zeros=torch.zeros, **o: zeros(*a, **DOUBLE))
    theirs = SO3_Rotation(6)
    theirs.set_wigner(rotations)
    assert (theirs.wigner - wigner_matrices(rotations, 6)).abs().max() < 1e-13


@pytest.mark.parametrize("lmax", [0, 1, 6])
def test_spherical_harmonics(lmax):
    axes = torch.eye(3, **DOUBLE)
    vectors = torch.cat([torch.randn(50, 3, **DOUBLE), axes, -axes, torch.zeros(1, 3, **DOUBLE)])
    expected = force_encoding.spherical_harmonics(vectors, lmax)
    assert (spherical_harmonics(vectors, lmax) - expected).abs().max() < 1e-13


class Launches(TorchDispatchMode):
    """Counts operations that are no views."""

    VIEWS = {"view", "transpose", "t", "slice", "select", "expand", "unsqueeze", "squeeze",
             "permute", "detach", "alias", "as_strided", "split", "split_with_sizes", "unbind",
             "_unsafe_view", "empty", "empty_like", "new_empty"}  # fmt: skip

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name.removeprefix("aten::") not in self.VIEWS
        return func(*args, **(kwargs or {}))


def test_a_layer_has_at_most_half_of_fairchems_launches(batch):
    found = {}
    for fast in (False, True):
        counts = []
        for layers in (1, 2):
            config = {**SMALL_EQUIFORMER, "num_layers": layers, "lmax_list": [6], "fast": fast}
            model = build_model(config).train()
            with Launches() as launches_:
                sum(each.sum() for each in model(batch.clone()).values()).backward()
            counts.append(launches_.count)
        found[fast] = counts[1] - counts[0]
    assert found[True] <= 0.5 * found[False]
