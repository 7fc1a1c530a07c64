"""The activation on the sphere as one Triton kernel for NVIDIA GPUs.

A program holds the coefficients of a few columns (an edge and a channel each) in registers, takes
some points of the grid at a time there and back, and writes coefficients: the grid is never in
memory. The backward pass does the same with the derivative.

Triton comes with CUDA builds of torch. The kernels are compiled for GPUs and run by Triton's
interpreter in `tests/models/fast/test_sphere_kernel.py`; :func:`usable` checks them once more on
the GPU that is there.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable
from typing import Any

import torch

COLUMNS = 64
POINTS = 32
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def usable(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels are there for tensors on ``device``, and give what PyTorch's operations
    do: tried once. A warning says if they do not, or Triton can't compile them."""
    if device.type != "cuda" or dtype not in DTYPES or not importlib.util.find_spec("triton"):
        return False
    return agrees(device, dtype)


@functools.cache
@torch.inference_mode(False)
def agrees(device: torch.device, dtype: torch.dtype) -> bool:
    """The kernels' values and gradients beside PyTorch's, on random coefficients."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((37, 29, 9), (50, 29), (50, 28))
    inputs = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    try:
        error = max(
            float((ours.float() - theirs.float()).abs().max() / theirs.float().abs().max())
            for ours, theirs in zip(
                value_and_gradient(fused_silu, *inputs),
                value_and_gradient(plain_silu, *inputs),
                strict=True,
            )
        )
    except Exception as failure:  # whatever a compiler or driver raises
        logging.warning(f"model.fast: the fused activation is not used on {device}: {failure}")
        return False
    if error > (1e-2 if dtype == torch.float32 else 5e-2):  # TF32, half precision
        logging.warning(
            f"model.fast: the fused activation is not used on {device}: its error is {error:.1e} "
            f"({dtype})"
        )
        return False
    return True


def fused_silu(x: torch.Tensor, to_grid: torch.Tensor, from_grid: torch.Tensor) -> torch.Tensor:
    """``from_grid^T silu(to_grid x)`` for each edge.

    Args:
        x: (E, I, C) coefficients: float32, bfloat16 or float16, like the others. Sums are taken in
            float32 (products in TF32 if ``torch.backends.cuda.matmul.allow_tf32``).
        to_grid: (G, I). from_grid: (G, J).

    Returns:
        (E, J, C). Differentiable once.
    """
    return _FusedSilu.apply(x, to_grid, from_grid)


class _FusedSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, to_grid: torch.Tensor, from_grid: torch.Tensor
    ) -> torch.Tensor:
        x, to_grid, from_grid = x.contiguous(), to_grid.contiguous(), from_grid.contiguous()
        ctx.save_for_backward(x, to_grid, from_grid)
        out = x.new_empty(x.shape[0], from_grid.shape[1], x.shape[2])
        _launch("forward", x, to_grid, from_grid, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, to_grid, from_grid = ctx.saved_tensors
        out = torch.empty_like(x)
        _launch("backward", x, gradient.contiguous(), to_grid, from_grid, out)
        return out, None, None


def _launch(program: str, x: torch.Tensor, *others: torch.Tensor) -> None:
    from dens_ocp.models.fast.operations import sphere_programs  # needs Triton

    edges, size, channels = x.shape
    points, to = others[-2].shape
    columns = edges * channels
    if not columns:
        return
    with torch.cuda.device_of(x):
        getattr(sphere_programs, program)[(-(-columns // COLUMNS),)](
            x, *others, columns, **constants(size, to, channels, points)
        )


def constants(size: int, to: int, channels: int, points: int) -> dict[str, Any]:
    """What a kernel is compiled for: I, J, C and G, padded to what products need."""
    return {
        "C": channels,
        "SIZE": size,
        "TO": to,
        "G": points,
        "SIZE_PAD": _padded(size),
        "TO_PAD": _padded(to),
        "POINTS": POINTS,
        "COLUMNS": COLUMNS,
        "PRECISION": "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee",
    }


def _padded(size: int) -> int:
    return max(16, 1 << (size - 1).bit_length())


def plain_silu(x: torch.Tensor, to_grid: torch.Tensor, from_grid: torch.Tensor) -> torch.Tensor:
    return from_grid.t() @ torch.nn.functional.silu(to_grid @ x)


def value_and_gradient(
    function: Callable[..., torch.Tensor], x: torch.Tensor, *matrices: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        out = function(x, *matrices)
        (gradient,) = torch.autograd.grad(out.square().sum(), x)
    return out.detach(), gradient
