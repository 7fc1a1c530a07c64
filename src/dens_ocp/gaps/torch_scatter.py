"""``torch_scatter``, as far as fairchem-core 1.10.0 asks for it, from torch's own operators.

For all its models but GemNet-GP; where torch-scatter is not installed. Values and gradients are
those of torch-scatter 2.1.2 (``tests/gaps/test_torch_scatter.py``). It can go when fairchem-core
does not import the package any more (2.0 does not).
"""

from __future__ import annotations

import torch

__version__ = "2.1.2"
_REDUCTIONS = ("sum", "add", "mul", "mean", "min", "max")


def broadcast(src: torch.Tensor, other: torch.Tensor, dim: int) -> torch.Tensor:
    """``src`` with the shape of ``other``: one of a single dimension runs along ``dim``."""
    dim = dim % other.dim()
    if src.dim() == 1:
        src = src.view([1] * dim + [-1])
    return src.view(*src.shape, *[1] * (other.dim() - src.dim())).expand(other.shape)


def scatter(
    src: torch.Tensor,
    index: torch.Tensor,
    dim: int = -1,
    out: torch.Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> torch.Tensor:
    """Reduces the values of ``src`` that share an index.

    Args:
        src: values.
        index: int64, of one dimension or with as many as can be broadcast to ``src``.
        dim: of ``src``, along which is reduced.
        out: where sums go, added to what is there; only for ``sum``.
        dim_size: of the result; default: the largest index + 1.
        reduce: sum, add, mul, mean, min or max. Of equal minima one gets the gradient.

    Returns:
        As ``src``, but of size ``dim_size`` along ``dim``. Where nothing is reduced 0, for ``mul``
        1.

    Raises:
        ValueError: another reduction.
        NotImplementedError: ``out`` with another reduction than a sum.
    """
    if reduce not in _REDUCTIONS:
        raise ValueError(f"reduce: {reduce!r} is not one of {', '.join(_REDUCTIONS)}")
    dim = dim % src.dim()
    index = broadcast(index, src, dim)
    if out is not None:
        if reduce not in ("sum", "add"):
            raise NotImplementedError(f"out with reduce={reduce!r}")
        return out.scatter_add_(dim, index, src)
    if dim_size is None:
        dim_size = int(index.max()) + 1 if index.numel() else 0
    shape = [*src.shape[:dim], dim_size, *src.shape[dim + 1 :]]
    if reduce in ("min", "max"):
        return _extreme(src, index, dim, shape, reduce)
    if reduce == "mul":
        return src.new_ones(shape).scatter_reduce(dim, index, src, "prod")
    sums = src.new_zeros(shape).scatter_add_(dim, index, src)
    if reduce != "mean":
        return sums
    counts = src.new_zeros(shape).scatter_add_(dim, index, torch.ones_like(src)).clamp_(min=1)
    return sums / counts if src.is_floating_point() else sums.div_(counts, rounding_mode="floor")


def _extreme(
    src: torch.Tensor, index: torch.Tensor, dim: int, shape: list[int], reduce: str
) -> torch.Tensor:
    size, values = src.shape[dim], src.detach()
    if size == 0:
        return src.new_zeros(shape).scatter_add(dim, index, src)
    best = values.new_zeros(shape).scatter_reduce(
        dim, index, values, f"a{reduce}", include_self=False
    )
    # the first of those that are equal
    places = broadcast(torch.arange(size, device=src.device), src, dim)
    places = torch.where(values == best.gather(dim, index), places, size)
    first = places.new_full(shape, size).scatter_reduce(dim, index, places, "amin")
    none = first == size
    return src.gather(dim, first.masked_fill(none, 0)).masked_fill(none, 0)


def segment_coo(
    src: torch.Tensor,
    index: torch.Tensor,
    out: torch.Tensor | None = None,
    dim_size: int | None = None,
    reduce: str = "sum",
) -> torch.Tensor:
    """:func:`scatter` along the last dimension of ``index``, whose shape is that of the first
    dimensions of ``src``."""
    dim = index.dim() - 1
    index = index.expand(src.shape[: index.dim()])
    index = index.view(*index.shape, *[1] * (src.dim() - index.dim())).expand(src.shape)
    return scatter(src, index, dim, out, dim_size, reduce)


def segment_csr(
    src: torch.Tensor, indptr: torch.Tensor, out: torch.Tensor | None = None, reduce: str = "sum"
) -> torch.Tensor:
    """Reduces ``src`` between ``indptr[..., i]`` and ``indptr[..., i + 1]``, along its last
    dimension; other values do not count."""
    dim, segments = indptr.dim() - 1, indptr.shape[-1] - 1
    indptr = indptr.expand(*src.shape[:dim], -1).contiguous()
    places = torch.arange(src.shape[dim], device=src.device).expand(src.shape[: dim + 1])
    index = torch.searchsorted(indptr, places.contiguous(), right=True) - 1
    index = index.masked_fill(index < 0, segments)  # before the first, as after the last
    found = segment_coo(src, index, None, segments + 1, reduce).narrow(dim, 0, segments)
    return found if out is None else out.copy_(found)
