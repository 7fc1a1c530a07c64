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
from collections.abc import Sequence
from typing import Any

import torch

from dens_ocp.models.fast.operations.launches import few_launches


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
        self.there, self.back = {}, {}
        for degree in self.degrees:
            first, width = degree**2, min(degree, mmax)
            middle = first + degree
            block = wigner[
                :, middle - width : middle + width + 1, first : first + 2 * degree + 1
            ].contiguous()
            self.there[degree] = block
            self.back[degree] = block
            if rescale and degree > mmax:
                self.back[degree] = block * math.sqrt((2 * degree + 1) / (2 * mmax + 1))

    @property
    def size(self) -> int:
        """E."""
        return self.there[self.degrees[0]].shape[0]

    @property
    def coefficients(self) -> int:
        """Of an atom: (Lmax+1)^2."""
        return sum(2 * degree + 1 for degree in self.degrees)

    def of(self, edges: torch.Tensor) -> EdgeFrames:
        """The frames of some edges, (K,) int64."""
        return self._mapped(lambda block: block[edges])

    def to(self, dtype: torch.dtype) -> EdgeFrames:
        """In another dtype."""
        return self._mapped(lambda block: block.to(dtype))

    def _mapped(self, function) -> EdgeFrames:  # noqa: ANN001
        other = copy.copy(self)
        other.there = {degree: function(block) for degree, block in self.there.items()}
        other.back = {
            degree: other.there[degree] if block is self.there[degree] else function(block)
            for degree, block in self.back.items()
        }
        return other

    def only(self, degree: int) -> EdgeFrames:
        """For coefficients of one degree alone."""
        other = copy.copy(self)
        other.degrees, other.mmax = range(degree, degree + 1), min(self.mmax, degree)
        return other

    def degrees_of(self, order: int) -> range:
        """The degrees that have an order."""
        return range(max(order, self.degrees.start), self.degrees.stop)

    def rows(self, order: int) -> int:
        """Coefficients of +-order."""
        return len(self.degrees_of(order)) * (1 if order == 0 else 2)

    def into(self, x: torch.Tensor, blocks: Any, edges: slice) -> list[torch.Tensor]:
        """Coefficients by degree (B, coefficients, C) of some edges to orders; ``blocks``:
        ``there``, or ``back`` for the adjoint of the way back."""
        turned, start = {}, 0
        for degree in self.degrees:
            turned[degree] = torch.bmm(blocks[degree][edges], x[:, start : start + 2 * degree + 1])
            start += 2 * degree + 1
        orders = []
        for order in range(self.mmax + 1):
            rows = []
            for m in (order, -order) if order else (0,):
                for degree in self.degrees_of(order):
                    row = turned[degree].shape[1] // 2 + m
                    rows.append(turned[degree][:, row : row + 1])
            orders.append(torch.cat(rows, 1))
        return orders

    def out_of(self, orders: Sequence[torch.Tensor], blocks: Any, edges: slice) -> torch.Tensor:
        """Orders (m = 0 and as many more as are given) of some edges to coefficients by degree
        (B, coefficients, C); ``blocks``: ``back``, or ``there`` for the adjoint of the way
        there."""
        turned = []
        for degree in self.degrees:
            block = blocks[degree]
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

    ``there`` and ``back`` are (E, rows, coefficients).
    """

    def __init__(self, wigner: torch.Tensor, lmax: int, mmax: int, *, rescale: bool) -> None:
        self.degrees, self.mmax = range(lmax + 1), mmax
        rows, factors = _rows(lmax, mmax, wigner.device, wigner.dtype)
        self.there = wigner.index_select(1, rows)
        self.back = self.there * factors if rescale else self.there
        self._casts: dict[torch.dtype, MatrixFrames] = {}

    @property
    def size(self) -> int:
        return self.there.shape[0]

    def to(self, dtype: torch.dtype) -> MatrixFrames:
        if dtype == self.there.dtype:
            return self
        if dtype not in self._casts:  # every layer asks for it
            self._casts[dtype] = self._mapped(lambda matrix: matrix.to(dtype))
        return self._casts[dtype]

    def _mapped(self, function) -> MatrixFrames:  # noqa: ANN001
        other = copy.copy(self)
        other.there = function(self.there)
        other.back = other.there if self.back is self.there else function(self.back)
        other._casts = {}
        return other

    def only(self, degree: int) -> MatrixFrames:
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

    def into(self, x: torch.Tensor, blocks: Any, edges: slice) -> list[torch.Tensor]:
        sizes = [self.rows(order) for order in range(self.mmax + 1)]
        return list(torch.bmm(blocks[edges], x).split(sizes, 1))

    def out_of(self, orders: Sequence[torch.Tensor], blocks: Any, edges: slice) -> torch.Tensor:
        values = orders[0] if len(orders) == 1 else torch.cat(list(orders), 1)
        return torch.bmm(blocks[edges, : values.shape[1]].transpose(1, 2), values)


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
