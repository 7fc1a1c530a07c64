"""fairchem's layer normalisation of spherical harmonics in a fifth of its operations."""

from __future__ import annotations

import functools
from typing import Any

import torch
from fairchem.core.models.equiformer_v2.layer_norm import (
    EquivariantLayerNormArraySphericalHarmonics,
)

from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.operations.launches import few_launches


class _LayerNorm(torch.autograd.Function):
    """l = 0: a layer norm of channels. Others: x_i r w_l(i) with r = (mean over channels of
    sum_i b_i x_i^2 + eps)^(-1/2); b is (I - 1, 1)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        scalar_weight: torch.Tensor,
        scalar_bias: torch.Tensor,
        weight: torch.Tensor,
        balance: torch.Tensor,
        degree_of: torch.Tensor,
        eps: float,
    ) -> torch.Tensor:
        channels, out = x.shape[2], torch.empty_like(x, memory_format=torch.contiguous_format)
        scalars, mean, deviation = torch.native_layer_norm(
            x[:, 0], [channels], scalar_weight, scalar_bias, eps
        )
        out[:, 0] = scalars
        others = x[:, 1:]
        squares = (others * others).sum(2) @ balance[:, 0]
        scale = squares.mul_(1 / channels).add_(eps).rsqrt_()
        ctx.save_for_backward(
            x, scalar_weight, scalar_bias, weight, balance, degree_of, mean, deviation, scale
        )
        torch.mul(others, weight.index_select(0, degree_of), out=out[:, 1:])
        out[:, 1:].mul_(scale[:, None, None])
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, scalar_weight, scalar_bias, weight, balance, degree_of, mean, deviation, scale = (
            ctx.saved_tensors
        )
        channels, out = x.shape[2], torch.empty_like(x, memory_format=torch.contiguous_format)
        of_scalars, of_scalar_weight, of_scalar_bias = torch.ops.aten.native_layer_norm_backward(
            gradient[:, 0].contiguous(), x[:, 0], [channels], mean, deviation,
            scalar_weight, scalar_bias, [True, True, True],
        )  # fmt: skip
        out[:, 0] = of_scalars
        others, of_others, from_others = x[:, 1:], gradient[:, 1:], out[:, 1:]
        weights = weight.index_select(0, degree_of)
        products = (of_others * others).flatten(1)
        of_weights = (scale @ products).view_as(weights)
        of_weight = torch.zeros_like(weight).index_add_(0, degree_of, of_weights)
        # dr/dx_i = -r^3 b_i x_i / channels
        factor = (products @ weights.flatten()) * scale**3
        torch.mul(of_others, weights, out=from_others)
        from_others.mul_(scale[:, None, None])
        from_others.addcmul_(others * balance, factor[:, None, None], value=-1 / channels)
        return out, of_scalar_weight, of_scalar_bias, of_weight, None, None, None


class FewLaunchesLayerNorm(FastForm, EquivariantLayerNormArraySphericalHarmonics):
    """fairchem's ``EquivariantLayerNormArraySphericalHarmonics`` with its own parameters.

    Shape: (N, (Lmax+1)^2, C) to the same. Differentiable once, where it is not fairchem's.
    """

    def forward(self, node_input: torch.Tensor) -> torch.Tensor:
        usual = self.affine and self.std_balance_degrees and self.normalization == "component"
        one_dtype = usual and node_input.dtype == self.affine_weight.dtype
        if not (one_dtype and self.lmax > 0 and few_launches(node_input.device)):
            return super().forward(node_input)
        with torch.autocast(node_input.device.type, enabled=False):
            return _LayerNorm.apply(
                node_input,
                self.norm_l0.weight,
                self.norm_l0.bias,
                self.affine_weight,
                self.balance_degree_weight,
                _degrees(self.lmax, node_input.device),
                self.eps,
            )


@functools.lru_cache(maxsize=16)
def _degrees(lmax: int, device: torch.device) -> torch.Tensor:
    """Degree of each coefficient but the first, less 1: (I - 1,) int64 with I = (Lmax+1)^2."""
    degrees = torch.arange(1, lmax + 1)
    with torch.inference_mode(False):
        return torch.repeat_interleave(degrees - 1, 2 * degrees + 1).to(device)
