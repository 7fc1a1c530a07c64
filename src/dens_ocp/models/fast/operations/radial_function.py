"""fairchem's radial functions without their copy of the distance basis.

The input of each is 600 Gaussians of the distance and two embeddings of elements. fairchem writes
the three side by side for each of them; here the first layer is applied to each part for itself,
to the elements once for all edges.
"""

from __future__ import annotations

import torch
from fairchem.core.models.equiformer_v2.radial_function import RadialFunction
from torch.utils.weak import WeakIdKeyDictionary

from dens_ocp.models.fast.operations.launches import few_launches
from dens_ocp.models.fast.operations.matrix_products import linear


def radial_function(
    layer: RadialFunction,
    edge_distance: torch.Tensor,
    atomic_numbers: torch.Tensor,
    edge_index: torch.Tensor,
    embeddings: tuple[torch.nn.Embedding | None, torch.nn.Embedding | None],
) -> torch.Tensor:
    """
    Args:
        layer: fairchem's.
        edge_distance: (E, bases).
        atomic_numbers: (N,) int64.
        edge_index: (2, E) int64.
        embeddings: of source and target element; None: ``edge_distance`` is all there is.

    Returns:
        (E, outputs).
    """
    first, *rest = layer.net
    source, target = embeddings
    if source is None or target is None:
        return layer.net(edge_distance)
    bases, channels = edge_distance.shape[1], source.embedding_dim
    of_bases, *of_elements = first.weight.split([bases, channels, channels], 1)
    out = linear(edge_distance, of_bases, first.bias)
    tables = [
        torch.nn.functional.linear(embedding.weight, weight)
        for embedding, weight in zip((source, target), of_elements, strict=True)
    ]
    if few_launches(out.device):
        elements = _elements(atomic_numbers, edge_index, len(tables[0]), out.dtype)
        out = torch.addmm(out, elements, torch.cat(tables))
    else:
        for table, atoms in zip(tables, edge_index, strict=True):
            out = out + table.index_select(0, atomic_numbers[atoms])
    for module in rest:
        out = module(out)
    return out


_KNOWN: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _elements(
    atomic_numbers: torch.Tensor, edge_index: torch.Tensor, count: int, dtype: torch.dtype
) -> torch.Tensor:
    """(E, 2 count) one-hot elements of source and target of each edge.

    A product with them takes the place of indexing, whose gradient is slow: thousands of edges add
    to the rows of a few elements. Each layer asks for the same edges, so they are kept as long as
    ``edge_index``.
    """
    known = _KNOWN.setdefault(edge_index, {})
    if (count, dtype) not in known:
        hot = torch.nn.functional.one_hot(atomic_numbers[edge_index], count)
        known[count, dtype] = hot.transpose(0, 1).flatten(1).to(dtype)
    return known[count, dtype]
