"""Linear layers through oneDNN.

On a CPU torch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors only;
oneDNN, which torch carries along, uses it on all that have it. On an AMD Zen 5 core a product of
(1480, 1280) and (1280, 896) runs at 105 GFLOP/s with the one and at 240 with the other
(``python -m benchmarks --products``). Elsewhere (other dtypes, devices, processors) this is
``torch.nn.functional.linear``.
"""

from __future__ import annotations

from typing import Any

import torch

from dens_ocp.models.fast.form import FastForm

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def uses_onednn(*tensors: torch.Tensor | None) -> bool:
    """Whether products of these tensors go to oneDNN: float32 on a CPU with AVX-512, outside
    autocast. A property of the machine and the tensors, never of a time measurement: every step of
    a run, and every run, gets the same bits."""
    return (
        _ONEDNN is not None
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
        and all(
            each is None or (each.device.type == "cpu" and each.dtype == torch.float32)
            for each in tensors
        )
        and not torch.is_autocast_enabled("cpu")
    )


def product(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``a @ b^T (+ bias)`` for (M, K) and (N, K), not differentiable; (M, N)."""
    if _ONEDNN and uses_onednn(a, b, bias) and a.numel() and b.numel():
        # a second factor that is neither dense nor the transpose of a dense one is a thousand times
        # slower in oneDNN
        dense = b.is_contiguous() or b.t().is_contiguous()
        return _ONEDNN(a, b if dense else b.contiguous(), bias, "none", [], "")
    return torch.nn.functional.linear(a, b, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.with_bias = bias is not None
        return product(x, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, gradient: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        x, weight = ctx.saved_tensors
        of_x = product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        of_weight = weight_gradient(gradient, x) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, gradient.sum(0) if ctx.with_bias else None


def weight_gradient(gradient: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``gradient^T @ x`` for (M, N) and (M, K): (N, K). The larger side goes first: oneDNN is up to
    twice as fast that way."""
    if gradient.shape[1] > x.shape[1]:
        return product(x.t(), gradient.t()).t()
    return product(gradient.t(), x.t())


def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """``torch.nn.functional.linear``: (..., K), (N, K), (N,) to (..., N). Through oneDNN it is
    differentiable once."""
    if x.dim() < 2 or not uses_onednn(x, weight, bias):
        return torch.nn.functional.linear(x, weight, bias)
    return _Linear.apply(x.flatten(0, -2), weight, bias).view(*x.shape[:-1], weight.shape[0])


class OneDnnLinear(FastForm, torch.nn.Linear):
    """``torch.nn.Linear``."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)
