"""Batches in which no atom has a neighbour within the cutoff.

fairchem's EquiformerV2 and eSCN cannot compute them: the smallest of no distances, SO(2)
convolutions of no edges. Such a batch is computed with one structure more, two atoms with an edge
to each other, whose outputs are left out. Nothing reaches the other atoms from it, so they come
out as they do beside other structures, and every parameter is in the graph, as DDP wants it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from fairchem.core.models.base import GraphData

if TYPE_CHECKING:
    from torch_geometric.data import Batch

from dens_ocp.dens.step_plan import StepPlan, read_plan

_PAIR = "pair_of_atoms"
_DISTANCE = 1.0  # Angstrom
_OF_ATOMS = ("fixed", "tags", "forces", "noise_mask", "noise_vec", "sigmas")


class NoEdgesError(Exception):
    """The graph of a batch has no edge."""


def with_pair(data: Batch) -> Batch:
    """The batch and the pair, as far as a model reads it; ``data`` is not changed.

    Args:
        data: B structures, N atoms.

    Returns:
        B + 1 structures, N + 2 atoms; per-atom fields of the pair are zero.
    """
    both = copy.copy(data)
    structures = data.natoms.numel()
    for name in _OF_ATOMS:
        if data.get(name, None) is not None:
            both[name] = _with_two_more(data[name])
    plan = read_plan(data)  # its corruption stands in the fields too
    both.step_plan = StepPlan(
        force_atoms=_with_two_more(plan.force_atoms), noise_atoms=_with_two_more(plan.noise_atoms)
    )
    if data.get("cell", None) is not None:
        both.cell = torch.cat([data.cell, torch.eye(3).to(data.cell)[None]])
    shift = data.pos.new_tensor([[0.0, 0.0, 0.0], [_DISTANCE, 0.0, 0.0]])
    both.pos = torch.cat([data.pos, shift])
    numbers = data.atomic_numbers
    both.atomic_numbers = torch.cat([numbers, numbers[:1].expand(2)])
    both.batch = torch.cat([data.batch, data.batch.new_full((2,), structures)])
    both.natoms = torch.cat([data.natoms, data.natoms.new_full((1,), 2)])
    both[_PAIR] = True
    return both


def _with_two_more(value: torch.Tensor | None) -> torch.Tensor | None:
    return None if value is None else torch.cat([value, value.new_zeros(2, *value.shape[1:])])


def has_pair(data: Batch) -> bool:
    """Whether :func:`with_pair` has made it."""
    return bool(data.get(_PAIR, False))


def graph_of_pair(data: Batch) -> GraphData:
    """fairchem's graph of such a batch: the two edges of the pair."""
    first = data.pos.shape[0] - 2
    ends = torch.tensor([[first, first + 1], [first + 1, first]], device=data.pos.device)
    vectors = data.pos[ends[0]] - data.pos[ends[1]]
    return GraphData(
        edge_index=ends,
        edge_distance=vectors.norm(dim=-1),
        edge_distance_vec=vectors,
        cell_offsets=vectors.new_zeros(2, 3),
        offset_distances=vectors.new_zeros(2, 3),
        neighbors=torch.cat([torch.zeros_like(data.natoms[:-1]), data.natoms.new_full((1,), 2)]),
        node_offset=0,
        batch_full=data.batch,
        atomic_numbers_full=data.atomic_numbers.long(),
    )


def without_pair(outputs: dict[str, torch.Tensor], data: Batch) -> dict[str, torch.Tensor]:
    """The outputs of the original batch.

    Args:
        outputs: of structures (B + 1, ...), or of atoms (N + 2, ...), which are more.
        data: the original batch.
    """
    structures, atoms = data.natoms.numel(), data.pos.shape[0]
    rows = {structures + 1: structures, atoms + 2: atoms}
    return {name: value[: rows[len(value)]] for name, value in outputs.items()}
