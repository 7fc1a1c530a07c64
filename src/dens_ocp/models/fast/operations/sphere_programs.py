"""Triton programs of :mod:`~dens_ocp.models.fast.operations.sphere_kernel`; importing it needs
Triton.

Matrices are padded with zeros to powers of two, at least 16. Column n is channel n % C of edge
n // C.
"""

import triton
import triton.language as tl


@triton.jit
def forward(
    x, to_grid, from_grid, out, columns,
    C: tl.constexpr, SIZE: tl.constexpr, TO: tl.constexpr, G: tl.constexpr,
    SIZE_PAD: tl.constexpr, TO_PAD: tl.constexpr, POINTS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out (E, TO, C) = from_grid^T silu(to_grid x); x (E, SIZE, C)."""
    n = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (n < columns)[None, :]
    i, j = tl.arange(0, SIZE_PAD)[:, None], tl.arange(0, TO_PAD)[:, None]
    at_x, at_out = _offsets(n, i, C, SIZE), _offsets(n, j, C, TO)
    values = tl.load(x + at_x, mask=inside & (i < SIZE), other=0.0)
    sums = tl.zeros((TO_PAD, COLUMNS), dtype=tl.float32)
    for start in range(0, G, POINTS):
        g = start + tl.arange(0, POINTS)
        there = _rows(to_grid, g, G, SIZE, SIZE_PAD)
        back = tl.trans(_rows(from_grid, g, G, TO, TO_PAD))
        on_grid = tl.dot(there, values, input_precision=PRECISION)
        on_grid = on_grid / (1.0 + tl.exp(-on_grid))
        sums += tl.dot(back, on_grid.to(values.dtype), input_precision=PRECISION)
    tl.store(out + at_out, sums, mask=inside & (j < TO))


@triton.jit
def backward(
    x, gradient, to_grid, from_grid, out, columns,
    C: tl.constexpr, SIZE: tl.constexpr, TO: tl.constexpr, G: tl.constexpr,
    SIZE_PAD: tl.constexpr, TO_PAD: tl.constexpr, POINTS: tl.constexpr,
    COLUMNS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """out (E, SIZE, C) = to_grid^T (from_grid gradient * silu'(to_grid x)); gradient (E, TO, C)."""
    n = tl.program_id(0).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    inside = (n < columns)[None, :]
    i, j = tl.arange(0, SIZE_PAD)[:, None], tl.arange(0, TO_PAD)[:, None]
    at_x, at_gradient = _offsets(n, i, C, SIZE), _offsets(n, j, C, TO)
    values = tl.load(x + at_x, mask=inside & (i < SIZE), other=0.0)
    gradients = tl.load(gradient + at_gradient, mask=inside & (j < TO), other=0.0)
    sums = tl.zeros((SIZE_PAD, COLUMNS), dtype=tl.float32)
    for start in range(0, G, POINTS):
        g = start + tl.arange(0, POINTS)
        there = _rows(to_grid, g, G, SIZE, SIZE_PAD)
        of_gradient = _rows(from_grid, g, G, TO, TO_PAD)
        on_grid = tl.dot(there, values, input_precision=PRECISION)
        share = 1.0 / (1.0 + tl.exp(-on_grid))
        slope = share * (1.0 + on_grid * (1.0 - share))
        slope *= tl.dot(of_gradient, gradients, input_precision=PRECISION)
        sums += tl.dot(tl.trans(there), slope.to(values.dtype), input_precision=PRECISION)
    tl.store(out + at_x, sums, mask=inside & (i < SIZE))


@triton.jit
def _offsets(n, row, C: tl.constexpr, SIZE: tl.constexpr):
    """(rows, columns): where coefficient ``row`` of column n lies in a tensor (E, SIZE, C)."""
    return (n // C * (SIZE * C) + n % C)[None, :] + row * C


@triton.jit
def _rows(matrix, g, G: tl.constexpr, K: tl.constexpr, K_PAD: tl.constexpr):
    """(POINTS, K_PAD): rows g of a (G, K) matrix."""
    k = tl.arange(0, K_PAD)[None, :]
    return tl.load(matrix + g[:, None] * K + k, mask=(g[:, None] < G) & (k < K), other=0.0)
