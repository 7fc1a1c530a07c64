"""Edge frames against fairchem's rotations and permutations."""

import pytest
import torch
from fairchem.core.models.equiformer_v2.edge_rot_mat import init_edge_rot_mat
from fairchem.core.models.equiformer_v2.so3 import CoefficientMappingModule, SO3_Rotation

from dens_ocp.models.fast.edge_frames import EdgeFrames, MatrixFrames, edge_frames
from dens_ocp.models.fast.messages import into_frames, out_of_frames
from dens_ocp.models.fast.operations import launches

EDGES, ATOMS, CHANNELS = 9, 4, 3
ORDERS = [(3, 2), (4, 2), (2, 0), (3, 3), (1, 1)]


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(params=[EdgeFrames, MatrixFrames], autouse=True)
def form(request, monkeypatch):
    monkeypatch.setattr(launches, "FORCED", request.param is MatrixFrames)
    return request.param


def rotation(lmax: int) -> SO3_Rotation:
    torch.manual_seed(lmax)
    found = SO3_Rotation(lmax)
    found.set_wigner(init_edge_rot_mat(torch.randn(EDGES, 3)))
    return found


def fairchems_orders(x, source, target, turned, lmax, mmax):
    """Gather, rotate, permute, as fairchem's attention does, cut into orders."""
    mapping = CoefficientMappingModule([lmax], [mmax])
    both = torch.cat([x[source], x[target]], 2)
    values = torch.einsum("nac,ba->nbc", turned.rotate(both, lmax, mmax), mapping.to_m)
    sizes = [size * (1 if m == 0 else 2) for m, size in enumerate(mapping.m_size.tolist())]
    return values.split(sizes, 1), mapping


@pytest.mark.parametrize("size", [1, 1 << 18])
@pytest.mark.parametrize(("lmax", "mmax"), ORDERS)
def test_there_and_back_as_fairchem(lmax, mmax, size, form, monkeypatch):
    monkeypatch.setattr(launches, "CPU_VALUES", size)
    turned = rotation(lmax)
    frames = edge_frames(turned.wigner, lmax, mmax, rescale=True)
    assert type(frames) is form
    x = torch.randn(ATOMS, (lmax + 1) ** 2, CHANNELS)
    source, target = torch.randint(ATOMS, (2, EDGES))
    expected, mapping = fairchems_orders(x, source, target, turned, lmax, mmax)
    found = into_frames(x, None, [source, target], frames)
    for a, b in zip(expected, found, strict=True):
        assert torch.allclose(a, b)

    values = torch.einsum("nac,ab->nbc", torch.cat(found, 1), mapping.to_m)
    back = torch.zeros(ATOMS, (lmax + 1) ** 2, 2 * CHANNELS)
    # the mapping of a rotation caches one pair (lmax, mmax); rotate has set it
    back.index_add_(0, target, turned.rotate_inv(values, lmax, mmax))
    assert torch.allclose(out_of_frames(found, None, target, ATOMS, frames), back)


@pytest.mark.parametrize("size", [1, 1 << 18])
@pytest.mark.parametrize(("lmax", "mmax"), ORDERS)
def test_gradients(lmax, mmax, size, monkeypatch):
    monkeypatch.setattr(launches, "CPU_VALUES", size)
    frames = edge_frames(rotation(lmax).wigner, lmax, mmax, rescale=True)
    source, target = torch.randint(ATOMS, (2, EDGES))
    x = torch.randn(ATOMS, (lmax + 1) ** 2, 2, requires_grad=True)
    degrees = sum(lmax + 1 - m for m in range(mmax + 1))
    scale = torch.randn(EDGES, degrees * 4, requires_grad=True)
    weights = torch.randn(EDGES, 2, requires_grad=True)

    def message(x, scale, weights):
        orders = into_frames(x, scale, [source, target], frames)
        return out_of_frames(orders, weights, target, ATOMS, frames)

    assert torch.autograd.gradcheck(message, (x, scale, weights), fast_mode=True)


def test_some_edges_and_one_degree():
    lmax, mmax = 4, 2
    turned = rotation(lmax)
    frames = edge_frames(turned.wigner, lmax, mmax, rescale=True)
    x = torch.randn(ATOMS, 25, CHANNELS)
    source = torch.randint(ATOMS, (EDGES,))
    some = torch.tensor([7, 2])
    whole, part = (
        into_frames(x, None, [ends], each)
        for ends, each in ((source, frames), (source[some], frames.of(some)))
    )
    for a, b in zip(whole, part, strict=True):
        assert torch.allclose(a[some], b)

    vectors = frames.only(1)
    found = out_of_frames([whole[0][:, 1:2], whole[1][:, [0, 4]]], None, source, ATOMS, vectors)
    expected = out_of_frames(whole, None, source, ATOMS, frames)[:, 1:4]
    assert torch.allclose(found, expected)


def test_rows_say_how_many_coefficients_an_order_has(form):
    frames = edge_frames(rotation(4).wigner, 4, 2, rescale=True)
    assert [frames.rows(order) for order in range(3)] == [5, 8, 6]
    assert (frames.size, frames.coefficients) == (EDGES, 25)
    there = frames.to(torch.float32).there
    assert there[-1].dtype == torch.float32
