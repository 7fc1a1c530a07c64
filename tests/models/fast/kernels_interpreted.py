"""Run with TRITON_INTERPRET=1: the kernels' values and gradients beside PyTorch's in float64."""

import pytest
import torch

from dens_ocp.models.fast.operations.sphere_kernel import (
    agrees,
    fused_silu,
    plain_silu,
    value_and_gradient,
)

generator = torch.Generator().manual_seed(0)
for edges, size, to, points, channels, dtype in [
    (0, 19, 18, 60, 7, torch.float32),
    (1, 1, 1, 4, 1, torch.float32),
    (5, 19, 18, 196, 7, torch.float32),
    (3, 29, 29, 324, 64, torch.float32),
    (9, 49, 17, 100, 3, torch.float32),
    (5, 19, 18, 196, 7, torch.float16),
]:
    shapes = [(edges, size, channels), (points, size), (points, to)]
    inputs = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    inputs = [inputs[0], inputs[1] / size**0.5, inputs[2] / points**0.5]
    ours = value_and_gradient(fused_silu, *inputs)
    theirs = value_and_gradient(plain_silu, *[each.double() for each in inputs])
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and a.dtype == dtype
        tolerance = 5e-6 if dtype == torch.float32 else 2e-2
        assert not a.numel() or (a.double() - b).abs().max() < tolerance * b.abs().max()

x = inputs[0].float().requires_grad_()
out = fused_silu(x, *[matrix.float() for matrix in inputs[1:]])
(first,) = torch.autograd.grad(out.sum(), x, create_graph=True)
with pytest.raises(RuntimeError):
    first.sum().backward()
with torch.inference_mode():
    assert agrees(torch.device("cpu"), torch.float32)
print("as PyTorch's")
