"""fairchem's SO(2) convolution on coefficients that lie by order already."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from fairchem.core.models.equiformer_v2.so2_ops import SO2_Convolution, SO2_m_Convolution

from dens_ocp.fast.matrix_products import linear


def so2_convolution(
    layer: SO2_Convolution, orders: Sequence[torch.Tensor]
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """The linear part of the convolution (the radial function is in the orders already).

    Args:
        layer: fairchem's, for its weights.
        orders: see :class:`~dens_ocp.fast.edge_frames.EdgeFrames`, of ``sphere_channels``.

    Returns:
        Orders of ``m_output_channels``, and the extra outputs of m = 0, (E, extra).
    """
    extra = layer.extra_m0_output_channels or 0
    out = linear(orders[0].flatten(1), layer.fc_m0.weight, layer.fc_m0.bias)
    more, out = out.split([extra, out.shape[1] - extra], 1)
    convolved = [out.unflatten(1, (-1, layer.m_output_channels))]
    for order, of_order in zip(orders[1:], layer.so2_m_conv, strict=True):
        out = linear(order.flatten(1), complex_matrix(of_order))
        convolved.append(out.unflatten(1, (-1, layer.m_output_channels)))
    return convolved, more


def complex_matrix(layer: SO2_m_Convolution) -> torch.Tensor:
    """The product of complex numbers as a matrix [[a, -b], [b, a]]: +m and -m come and go in one
    product, and nothing is left to be added up."""
    return _complex(*layer.fc.weight.chunk(2))


def _complex(real: torch.Tensor, imaginary: torch.Tensor) -> torch.Tensor:
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
        real, imaginary = layer.so2_m_conv[order - 1].fc.weight.chunk(2)
        rows = slice(first, first + channels)
        matrix = _complex(real[rows], imaginary[rows])
        out.append(linear(values.flatten(1), matrix).unflatten(1, (2, channels)))
    return out
