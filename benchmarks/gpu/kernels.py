"""The Triton kernels beside PyTorch's operations."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from benchmarks.gpu.findings import NOT_ON_A_CPU, Finding, Limit, holds, judged, not_judged
from benchmarks.gpu.parts import Setting
from dens_ocp.models.fast.operations import sphere_kernel

SHAPES = {"Lmax 4, mmax 2": (14 * 14, 19, 64), "Lmax 6, mmax 2": (18 * 18, 29, 64)}
"""Name -> points of the grid, coefficients, channels: of the models of the benchmark."""
EDGES = 500

_KINDS = {
    "float32": (torch.float32, False, Limit(1e-4, "sums of up to 324 products in another order")),
    "TF32": (torch.float32, True, Limit(1e-2, "10 bits, as what the kernel asks of itself")),
    "bfloat16": (torch.bfloat16, False, Limit(5e-2, "8 bits, as what the kernel asks of itself")),
    "float16": (torch.float16, False, Limit(2e-2, "11 bits; Triton's interpreter is within it")),
}


def inputs(
    shape: tuple[int, int, int], device: torch.device, dtype: torch.dtype
) -> list[torch.Tensor]:
    """Random coefficients (E, I, C) and matrices to the grid and back (G, I), of unit size."""
    points, size, channels = shape
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(EDGES, size, channels, generator=generator)
    matrices = [torch.randn(points, size, generator=generator) / size**0.5 for _ in range(2)]
    return [each.to(device, dtype) for each in (x, *matrices)]


def difference(found: torch.Tensor, reference: torch.Tensor) -> float:
    """The largest one, over the largest value of ``reference``."""
    found, reference = found.double(), reference.double()
    return float((found - reference).abs().max() / reference.abs().max())


def run(setting: Setting) -> Iterator[Finding]:
    """Values and gradients of the activation on the sphere, in each precision."""
    if not setting.cuda:
        why = f"{NOT_ON_A_CPU}: the kernels are programs of a GPU (tests run Triton's interpreter)"
        yield not_judged("activation on the sphere", "value, gradient", why)
        return
    products = torch.backends.cuda.matmul
    for name, (dtype, tf32, most) in _KINDS.items():
        row = f"activation on the sphere, {name}"
        usable = sphere_kernel.usable(setting.device, dtype)
        yield holds(row, "in use", usable, "as its own check at the first use says")
        if not usable:
            continue
        for shape_name, shape in SHAPES.items():
            given = inputs(shape, setting.device, dtype)
            exact = [each.float() for each in given]
            reference = sphere_kernel.value_and_gradient(sphere_kernel.plain_silu, *exact)
            before = products.allow_tf32
            products.allow_tf32 = tf32
            try:
                found = sphere_kernel.value_and_gradient(sphere_kernel.fused_silu, *given)
            finally:
                products.allow_tf32 = before
            for quantity, ours, theirs in zip(("value", "gradient"), found, reference, strict=True):
                off = difference(ours, theirs)
                yield judged(f"{row}, {shape_name}", quantity, off, most)
