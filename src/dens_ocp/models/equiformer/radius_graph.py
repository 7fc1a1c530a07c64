"""Pairs of atoms within a cutoff, without a periodic box.

fairchem's graph without a box needs torch-cluster, which it does not install.
"""

from __future__ import annotations

import torch


def radius_graph(pos: torch.Tensor, natoms: torch.Tensor, cutoff: float) -> torch.Tensor:
    """All pairs of atoms of one structure that are at most ``cutoff`` apart, both ways.

    Memory grows with the sum of the squares of ``natoms``.

    Args:
        pos: (N, 3) Angstrom, structure after structure.
        natoms: (B,) int, atoms of each structure.
        cutoff: Angstrom.

    Returns:
        (2, E) int: source, target.

    >>> pos = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    >>> radius_graph(pos, torch.tensor([2, 1]), 5.0).tolist()
    [[1, 0], [0, 1]]
    """
    natoms = natoms.to(pos.device)
    pairs = natoms**2
    first = (natoms.cumsum(0) - natoms).repeat_interleave(pairs)
    size = natoms.repeat_interleave(pairs)
    number = torch.arange(len(first), device=pos.device)
    number = number - (pairs.cumsum(0) - pairs).repeat_interleave(pairs)
    target, source = first + number // size, first + number % size
    distances = (pos[source] - pos[target]).detach().norm(dim=1)
    return torch.stack([source, target])[:, (distances <= cutoff) & (source != target)]
