"""Rotations into the frame of each edge and back, without what is zero or thrown away.

A Wigner matrix is block-diagonal in the degree l, and the SO(2) convolutions look at orders
|m| <= mmax only: of 49 x 49 values (Lmax 6) 235 count (mmax 2). The convolutions want the orders
together, fairchem turns degree by degree and permutes afterwards with a matrix product; here the
rows come out in the order in which they are used.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from dens_ocp.models.fast.operations.launches import few_launches

if TYPE_CHECKING:
    from typing_extensions import Self

Matrices = tuple[torch.Tensor, ...]
"""Rotations of E edges: for each degree l (E, orders, 2 l + 1), or one matrix for all."""


def edge_frames(wigner: torch.Tensor, lmax: int, mmax: int, *, rescale: bool) -> EdgeFrames:
    """The rotations of edges in the form that suits the device of ``wigner``; arguments are those
    of :class:`EdgeFrames`."""
    form = MatrixFrames if few_launches(wigner.device) else EdgeFrames
    return form(wigner, lmax, mmax, rescale=rescale)


class EdgeFrames:
    """The rotations of E edges.

    In a frame the coefficients are *orders*: a list of tensors for m = 0..mmax, the first
    (E, Lmax + 1, C), the others (E, 2 (Lmax + 1 - m), C): first +m of all degrees l = m..Lmax, then
    -m.

    Args:
        wigner: (E, (Lmax+1)^2, (Lmax+1)^2), fairchem's ``SO3_Rotation.wigner``.
        lmax: largest degree.
        mmax: largest order in a frame.
        rescale: degrees l > mmax times sqrt((2 l + 1) / (2 mmax + 1)) on the way back, as
            EquiformerV2 does because of the orders that are missing; eSCN does not.
    """

    def __init__(self, wigner: torch.Tensor, lmax: int, mmax: int, *, rescale: bool) -> None:
        self.degrees, self.mmax = range(lmax + 1), mmax
        self._casts: dict[torch.dtype, Self] = {}
        self.there, self.back = self._cut(wigner, rescale)

    def _cut(self, wigner: torch.Tensor, rescale: bool) -> tuple[Matrices, Matrices]:
        there, back = [], []
        for degree in self.degrees:
            first, width = degree**2, min(degree, self.mmax)
            middle = first + degree
            block = wigner[
                :, middle - width : middle + width + 1, first : first + 2 * degree + 1
            ].contiguous()
            there.append(block)
            if rescale and degree > self.mmax:
                block = block * math.sqrt((2 * degree + 1) / (2 * self.mmax + 1))
            back.append(block)
        return tuple(there), tuple(back)

    @property
    def size(self) -> int:
        """E."""
        return len(self.there[0])

    @property
    def coefficients(self) -> int:
        """Of an atom: (Lmax+1)^2."""
        return sum(2 * degree + 1 for degree in self.degrees)

    def of(self, edges: torch.Tensor) -> Self:
        """The frames of some edges, (K,) int64."""
        return self._mapped(lambda matrix: matrix[edges])

    def to(self, dtype: torch.dtype) -> Self:
        """In another dtype."""
        if dtype == self.there[0].dtype:
            return self
        if dtype not in self._casts:  # every layer asks for it
            self._casts[dtype] = self._mapped(lambda matrix: matrix.to(dtype))
        return self._casts[dtype]

    def _mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        other = copy.copy(self)
        other._casts = {}
        other.there = tuple(function(matrix) for matrix in self.there)
        other.back = tuple(
            mapped if back is there else function(back)
            for mapped, there, back in zip(other.there, self.there, self.back, strict=True)
        )
        return other

    def only(self, degree: int) -> Self:
        """For coefficients of one degree alone."""
        other, at = copy.copy(self), degree - self.degrees.start
        other.degrees, other.mmax = self.degrees[at : at + 1], min(self.mmax, degree)
        other._casts = {}
        other.there, other.back = self.there[at : at + 1], self.back[at : at + 1]
        return other

    def degrees_of(self, order: int) -> range:
        """The degrees that have an order."""
        return range(max(order, self.degrees.start), self.degrees.stop)

    def rows(self, order: int) -> int:
        """Coefficients of +-order."""
        return len(self.degrees_of(order)) * (1 if order == 0 else 2)

    def into(self, x: torch.Tensor, matrices: Matrices, edges: slice) -> list[torch.Tensor]:
        """Coefficients by degree (B, coefficients, C) of some edges to orders; ``matrices``:
        ``there``, or ``back`` for the adjoint of the way back."""
        parts = x.split([2 * degree + 1 for degree in self.degrees], 1)
        turned = [torch.bmm(m[edges], part) for m, part in zip(matrices, parts, strict=True)]
        orders = []
        for order in range(self.mmax + 1):
            rows = []
            for m in (order, -order) if order else (0,):
                for values in turned[self.degrees_of(order).start - self.degrees.start :]:
                    row = values.shape[1] // 2 + m
                    rows.append(values[:, row : row + 1])
            orders.append(torch.cat(rows, 1))
        return orders

    def out_of(
        self, orders: Sequence[torch.Tensor], matrices: Matrices, edges: slice
    ) -> torch.Tensor:
        """Orders (m = 0 and as many more as are given) of some edges to coefficients by degree
        (B, coefficients, C); ``matrices``: ``back``, or ``there`` for the adjoint of the way
        there."""
        turned = []
        for degree, block in zip(self.degrees, matrices, strict=True):
            middle = block.shape[1] // 2
            width = min(middle, len(orders) - 1)
            rows = []
            for m in range(-width, width + 1):
                degrees = self.degrees_of(abs(m))
                at = degree - degrees.start + (len(degrees) if m < 0 else 0)
                rows.append(orders[abs(m)][:, at : at + 1])
            of_edges = block[edges, middle - width : middle + width + 1]
            turned.append(torch.bmm(of_edges.transpose(1, 2), torch.cat(rows, 1)))
        return torch.cat(turned, 1)


class MatrixFrames(EdgeFrames):
    """:class:`EdgeFrames` with one matrix an edge, whose rows are the coefficients of all orders:
    a rotation is one batched product, four fifths of it with zeros.

    ``there`` and ``back`` have one entry, (E, rows, coefficients).
    """

    def _cut(self, wigner: torch.Tensor, rescale: bool) -> tuple[Matrices, Matrices]:
        rows, factors = _rows(len(self.degrees) - 1, self.mmax, wigner.device, wigner.dtype)
        there = wigner.index_select(1, rows)
        return (there,), (there * factors if rescale else there,)

    def with_matrices(self, there: torch.Tensor) -> Self:
        """Of other edges, whose ``there`` is given, in its dtype."""
        other = copy.copy(self)
        other._casts, other.there, other.back = {}, (there,), (there,)
        if self.back[0] is not self.there[0]:
            _, factors = _rows(len(self.degrees) - 1, self.mmax, there.device, there.dtype)
            other.back = (there * factors,)
        return other

    def only(self, degree: int) -> Self:
        # the rows of an order begin with its lowest degree
        rows, first = [], 0
        for order in range(min(self.mmax, degree) + 1):
            degrees = self.degrees_of(order)
            at = first + degree - degrees.start
            rows += [at] if order == 0 else [at, at + len(degrees)]
            first += self.rows(order)
        start = degree**2 - self.degrees.start**2
        columns = slice(start, start + 2 * degree + 1)
        other = self._mapped(
            lambda matrix: torch.stack([matrix[:, row, columns] for row in rows], 1)
        )
        other.degrees, other.mmax = range(degree, degree + 1), min(self.mmax, degree)
        return other

    def into(self, x: torch.Tensor, matrices: Matrices, edges: slice) -> list[torch.Tensor]:
        sizes = [self.rows(order) for order in range(self.mmax + 1)]
        return list(torch.bmm(matrices[0][edges], x).split(sizes, 1))

    def out_of(
        self, orders: Sequence[torch.Tensor], matrices: Matrices, edges: slice
    ) -> torch.Tensor:
        values = orders[0] if len(orders) == 1 else torch.cat(list(orders), 1)
        return torch.bmm(matrices[0][edges, : values.shape[1]].transpose(1, 2), values)


@functools.lru_cache(maxsize=16)
def _rows(
    lmax: int, mmax: int, device: torch.device, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of a Wigner matrix in the order of their use, (rows,) int64; their factors on the way
    back, (rows, 1)."""
    rows, factors = [], []
    for order in range(mmax + 1):
        for m in (order, -order) if order else (0,):
            for degree in range(order, lmax + 1):
                rows.append(degree**2 + degree + m)
                excess = (2 * degree + 1) / (2 * mmax + 1) if degree > mmax else 1.0
                factors.append([math.sqrt(excess)])
    with torch.inference_mode(False):
        return torch.tensor(rows, device=device), torch.tensor(factors, device=device, dtype=dtype)
