"""The Triton kernels beside PyTorch's operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu.findings import NOT_ON_A_CPU, Finding, Limit, holds, judged, not_judged
from benchmarks.gpu.parts import Setting
from dens_ocp.models.fast.operations import sphere_kernel
from dens_ocp.patched import swapped

SHAPES = {"Lmax 4, mmax 2": (14 * 14, 19, 64), "Lmax 6, mmax 2": (18 * 18, 29, 64)}
"""Name -> points of the grid, coefficients, channels: of the models of the benchmark."""
EDGES = 500

KINDS = {
    "float32": (torch.float32, False, Limit(1e-4, "sums of up to 324 products in another order")),
    "TF32": (torch.float32, True, Limit(1e-2, "10 bits, as what the kernel asks of itself")),
    "bfloat16": (torch.bfloat16, False, Limit(5e-2, "8 bits, as what the kernel asks of itself")),
    "float16": (torch.float16, False, Limit(2e-2, "11 bits; Triton's interpreter is within it")),
}
"""Name -> dtype, whether products are TF32, limit of the largest difference over the largest
value."""


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


def judge(
    function: Callable[..., torch.Tensor], name: str, shape: str, device: torch.device
) -> list[Finding]:
    """The value and the gradient of ``function`` beside those of PyTorch's operations in float32.

    Args:
        function: as :func:`~dens_ocp.models.fast.operations.sphere_kernel.fused_silu`.
        name: key of :data:`KINDS`. shape: key of :data:`SHAPES`.
    """
    dtype, tf32, most = KINDS[name]
    given = inputs(SHAPES[shape], device, dtype)
    exact = [each.float() for each in given]
    reference = sphere_kernel.value_and_gradient(sphere_kernel.plain_silu, *exact)
    with swapped(torch.backends.cuda.matmul, "allow_tf32", tf32):
        found = sphere_kernel.value_and_gradient(function, *given)
    return [
        judged(f"activation on the sphere, {name}, {shape}", quantity, difference(*pair), most)
        for quantity, pair in zip(
            ("value", "gradient"), zip(found, reference, strict=True), strict=True
        )
    ]


def run(setting: Setting) -> Iterator[Finding]:
    """Values and gradients of the activation on the sphere, in each precision."""
    if not setting.cuda:
        why = f"{NOT_ON_A_CPU}: the kernels are programs of a GPU (tests run Triton's interpreter)"
        yield not_judged("activation on the sphere", "value, gradient", why)
        return
    for name, (dtype, _, _) in KINDS.items():
        usable = sphere_kernel.usable(setting.device, dtype)
        detail = "its own check at the first use says so" if usable else "see the log for why not"
        yield holds(f"activation on the sphere, {name}", "in use", usable, detail)
        for shape in SHAPES if usable else ():
            yield from judge(sphere_kernel.fused_silu, name, shape, setting.device)
