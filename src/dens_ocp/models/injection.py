"""Adds an embedding to a fairchem backbone's initial node embedding, without its forward.

A hook is set for the length of one forward. Both places lie outside the blocks that activation
checkpointing recomputes, and the embedding is added to a new tensor, never in place.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def added_to_output(module: torch.nn.Module, embedding: torch.Tensor) -> Iterator[None]:
    """Add ``embedding`` to the ``SO3_Embedding`` that ``module`` returns.

    For EquiformerV2's ``edge_degree_embedding``, whose output the backbone adds to the initial
    node embedding. It is called with the number of this rank's atoms and the index of the first
    one as its last two arguments; under graph parallelism these pick this rank's rows.

    Args:
        module: the backbone's edge-degree embedding.
        embedding: (N, (lmax + 1)^2, C) of all N atoms of the batch.
    """

    def hook(_module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        num_nodes, first_node = args[-2:]
        output.embedding = output.embedding + embedding[first_node : first_node + num_nodes]
        return output

    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def added_to_input(module: torch.nn.Module, embedding: torch.Tensor) -> Iterator[None]:
    """Add ``embedding`` to the ``SO3_Embedding`` that is the first argument of ``module``.

    For the first layer block of eSCN, which has no residual connection around it.

    Args:
        module: the backbone's first layer block.
        embedding: (N, (lmax + 1)^2, C).
    """

    def hook(_module: torch.nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        first = copy.copy(args[0])
        first.embedding = first.embedding + embedding
        return (first, *args[1:])

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
