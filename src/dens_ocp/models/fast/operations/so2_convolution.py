"""fairchem's SO(2) convolution on coefficients that lie by order already."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fairchem.core.models.equiformer_v2.so2_ops import SO2_Convolution

from dens_ocp.models.fast.operations.launches import applied, few_launches, working_dtype
from dens_ocp.models.fast.operations.matrix_products import (
    linear,
    product,
    uses_onednn,
    weight_gradient,
)


def so2_convolution(
    layer: SO2_Convolution, orders: Sequence[torch.Tensor], *, twice: bool = False
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The linear part of the convolution (the radial function is in the orders already).

    Args:
        layer: EquiformerV2's, eSCN's or eSEN's, for its weights.
        twice: it is differentiated twice.
        orders: see :class:`~dens_ocp.models.fast.edge_frames.EdgeFrames`, of ``sphere_channels``.

    Returns:
        Orders of ``m_output_channels``, and the extra outputs of m = 0, (E, extra).
    """
    extra = layer.extra_m0_output_channels or 0
    dense = torch.nn.functional.linear if twice else linear
    product_of = _complex_linear_twice if twice else complex_linear
    out = dense(orders[0].flatten(1), layer.fc_m0.weight, layer.fc_m0.bias)
    more, out = out.split([extra, out.shape[1] - extra], 1)
    convolved = [out.unflatten(1, (-1, layer.m_output_channels))]
    for order, of_order in zip(orders[1:], layer.so2_m_conv, strict=True):
        out = product_of(order.flatten(1), of_order.fc.weight)
        convolved.append(out.unflatten(1, (-1, layer.m_output_channels)))
    return convolved, more


class _ComplexLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, _complex(weight))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        of_x = product(gradient, _complex(weight).t())
        upper, lower = weight_gradient(gradient, x).chunk(2)
        (real, left), (right, other) = upper.chunk(2, 1), lower.chunk(2, 1)
        return of_x, torch.cat([real + other, right - left])


class _ComplexLinearByThree(torch.autograd.Function):
    """Three products in the place of four (Gauss): with x = x+ + i x- and w = a + i b

    x w = (k - x- (a + b)) + i (k + x+ (b - a)),  k = (x+ + x-) a

    and likewise for both gradients, conj(w) and conj(x) in the place of w and x.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        (plus, minus), (a, b) = x.chunk(2, 1), weight.chunk(2)
        common = (plus + minus) @ a.t()
        out = x.new_empty(len(x), len(weight))
        real, imaginary = out.chunk(2, 1)
        torch.addmm(common, minus, (a + b).t(), alpha=-1, out=real)
        torch.addmm(common, plus, (b - a).t(), out=imaginary)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        (plus, minus), (a, b) = x.chunk(2, 1), weight.chunk(2)
        real, imaginary = gradient.chunk(2, 1)
        both = real + imaginary
        common = both @ a
        of_x, of_weight = torch.empty_like(x), torch.empty_like(weight)
        of_plus, of_minus = of_x.chunk(2, 1)
        torch.addmm(common, imaginary, a - b, alpha=-1, out=of_plus)
        torch.addmm(common, real, a + b, alpha=-1, out=of_minus)
        common = real.t() @ (plus - minus)
        of_a, of_b = of_weight.chunk(2)
        torch.addmm(common, both.t(), minus, out=of_a)
        torch.addmm(common, (imaginary - real).t(), plus, out=of_b)
        return of_x, of_weight


class _ComplexLinearByParts(torch.autograd.Function):
    """All four products in one, added up afterwards: the matrix need not be made."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(1, (2, -1)).flatten(0, 1)
        ctx.save_for_backward(x, weight)
        (real, turned), (other, straight) = (
            part.chunk(2, 1) for part in (x @ weight.t()).unflatten(0, (-1, 2)).unbind(1)
        )
        out = x.new_empty(len(real), 2, real.shape[1])
        torch.sub(real, straight, out=out[:, 0])
        torch.add(turned, other, out=out[:, 1])
        return out.flatten(1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, weight = ctx.saved_tensors
        plus, minus = gradient.chunk(2, 1)
        both = gradient.new_empty(len(gradient), 2, gradient.shape[1])
        both[:, 0] = gradient
        both[:, 1, : plus.shape[1]] = minus
        torch.neg(plus, out=both[:, 1, plus.shape[1] :])
        both = both.flatten(0, 1)
        return (both @ weight).unflatten(0, (-1, 2)).flatten(1), both.t() @ x


def complex_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The product of complex numbers with a matrix. On a CPU by three products of its parts. By one
    product with [[a, -b], [b, a]], twice as large as the weights and made again in the backward
    pass, in half precision, where sums of the parts would be rounded, and where oneDNN multiplies
    so fast that the sums take as long as the product they save.

    Args:
        x: (E, 2 K), +m first.
        weight: (2 N, K), a first, then b: ``SO2_m_Convolution.fc.weight``.

    Returns:
        (E, 2 N). Differentiable once.
    """
    if few_launches(x.device):
        form: type[torch.autograd.Function] = _ComplexLinearByParts
    elif uses_onednn(x, weight) or working_dtype(x) in (torch.float16, torch.bfloat16):
        form = _ComplexLinear
    else:
        form = _ComplexLinearByThree
    return applied(form, x, weight)


def _complex_linear_twice(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """:func:`complex_linear` by three products (:class:`_ComplexLinearByThree`), of torch's own
    operations."""
    (plus, minus), (a, b) = x.chunk(2, 1), weight.chunk(2)
    common = (plus + minus) @ a.t()
    return torch.cat([common - minus @ (a + b).t(), common + plus @ (b - a).t()], 1)


def _complex(weight: torch.Tensor) -> torch.Tensor:
    real, imaginary = weight.chunk(2)
    return torch.cat([torch.cat([real, -imaginary], 1), torch.cat([imaginary, real], 1)])


def so2_convolution_of_degree(
    layer: SO2_Convolution, orders: Sequence[torch.Tensor], degree: int
) -> list[torch.Tensor]:
    """Orders 0..degree of the convolution's output of one degree alone, (E, 1 or 2, C); as many
    orders are looked at."""
    channels, extra = layer.m_output_channels, layer.extra_m0_output_channels or 0
    rows = slice(extra + degree * channels, extra + (degree + 1) * channels)
    weight, bias = layer.fc_m0.weight[rows], layer.fc_m0.bias[rows]
    out = [linear(orders[0].flatten(1), weight, bias)[:, None]]
    for order, values in enumerate(orders[1:], start=1):
        first = (degree - order) * channels
        both = layer.so2_m_conv[order - 1].fc.weight.unflatten(0, (2, -1))
        weight = both[:, first : first + channels].flatten(0, 1)
        out.append(complex_linear(values.flatten(1), weight).unflatten(1, (2, channels)))
    return out
