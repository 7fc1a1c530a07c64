"""Linear layers through oneDNN where it is the faster library.

On a CPU torch multiplies float32 matrices with MKL, which uses AVX-512 on Intel's processors only;
oneDNN, which torch carries along, uses it on all that have it. On an AMD Zen 5 core a product of
(1480, 1280) and (1280, 896) runs at 105 GFLOP/s with the one and at 240 with the other
(``python -m benchmarks --products``). On Intel's processors, and on AMD's up to Zen 4, whose units
are 256 bits wide, both run at the same speed. Which one is taken follows from the processor alone,
never from a measurement: two runs on one machine give the same numbers to the last bit. For other
dtypes and devices this is ``torch.nn.functional.linear``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from dens_ocp.models.fast.form import FastForm

_ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None)

_PROCESSOR = Path("/proc/cpuinfo")

ZEN_5 = 26
"""AMD's family number of Zen 5, the first whose units for AVX-512 are 512 bits wide."""

_taken: bool | None = None


def takes_onednn() -> bool:
    """Whether float32 products on this machine's CPU go to oneDNN."""
    global _taken
    if _taken is None:
        _taken = _ONEDNN is not None and _is_faster_here()
    return _taken


def take_onednn(choice: bool) -> None:
    """Take the choice of another process: a resumed run repeats the one that it goes on from."""
    global _taken
    _taken = choice and _ONEDNN is not None


def _is_faster_here() -> bool:
    """Whether MKL leaves AVX-512 unused on a processor that has wide units for it. What Linux says
    of the first core; elsewhere torch's own library is kept."""
    if not torch.backends.mkl.is_available():
        return False
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not _PROCESSOR.is_file():
        return False
    described = _PROCESSOR.read_text(encoding="utf-8", errors="replace")
    vendor = re.search(r"^vendor_id\s*:\s*(\S+)", described, re.M)
    family = re.search(r"^cpu family\s*:\s*(\d+)", described, re.M)
    if vendor is None or family is None:
        return False
    return vendor[1] == "AuthenticAMD" and int(family[1]) >= ZEN_5


def uses_onednn(*tensors: torch.Tensor | None) -> bool:
    """Whether products of these tensors go to oneDNN: float32 on a CPU, outside autocast, on a
    processor where oneDNN is faster."""
    return (
        _ONEDNN is not None
        and all(
            each is None or (each.device.type == "cpu" and each.dtype == torch.float32)
            for each in tensors
        )
        and not torch.is_autocast_enabled("cpu")
        and takes_onednn()
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
    """``torch.nn.Linear``, where the model's outputs are not gradients themselves."""

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        return not getattr(model, "gradient_forces", False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return linear(x, self.weight, self.bias)
