"""Structures to measure on: slabs with an adsorbate, always the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from ase.build import add_adsorbate, fcc111
from fairchem.core.preprocessing import AtomsToGraphs
from torch_geometric.data import Data

from dens_ocp.data.records.oc20_records import write_lmdb, write_metadata

METALS = ("Cu", "Pt", "Al", "Ni", "Pd", "Ag")
ADSORBATES = ("O", "N", "H", "C")
FREE_SHARE = {"oc20": 0.2, "free": 1.0, "stress": 1.0}
"""Batch -> share of free atoms: OC20 fixes most of a slab, OC22 nothing; ``stress``: records have
one, and models predict it."""


def slab(index: int, size: tuple[int, int, int], free_share: float) -> Data:
    """A rattled fcc(111) slab with an atom on it, and random labels.

    Args:
        index: which metal, adsorbate, rattling and labels.
        size: atoms along both axes of the surface, and layers.
        free_share: of the atoms, the highest ones are free.

    Returns:
        A record as in OC20's LMDBs: ``pos``, ``cell``, ``atomic_numbers``, ``tags``, ``fixed``,
        ``natoms``, ``y`` (eV), ``force`` (N, 3; eV/Angstrom), ``stress`` (1, 3, 3), ``sid``,
        ``fid``.
    """
    atoms = fcc111(METALS[index % len(METALS)], size=size, vacuum=8.0)
    add_adsorbate(atoms, ADSORBATES[index % len(ADSORBATES)], height=1.4, position="fcc")
    atoms.pbc = True
    atoms.rattle(0.1, seed=index)
    data = AtomsToGraphs(r_edges=False, r_energy=False, r_forces=False, r_fixed=False).convert(
        atoms, sid=index
    )
    generator = torch.Generator().manual_seed(index)
    free = max(1, round(free_share * len(atoms)))
    data.fixed = torch.ones(len(atoms), dtype=torch.long)
    data.fixed[data.pos[:, 2].topk(free).indices] = 0
    data.tags = torch.where(data.fixed == 0, 1, 0)
    data.tags[-1] = 2
    data.atomic_numbers = data.atomic_numbers.long()
    data.y = torch.randn(1, generator=generator).item()
    data.force = torch.randn(len(atoms), 3, generator=generator)
    stress = torch.randn(1, 3, 3, generator=generator)
    data.stress = stress + stress.transpose(1, 2)
    data.fid = 0
    return data


def records(kind: str, structures: int, size: tuple[int, int, int]) -> list[Data]:
    """The structures of a batch; ``kind`` is a key of :data:`FREE_SHARE`."""
    return [slab(index, size, FREE_SHARE[kind]) for index in range(structures)]


def write(folder: Path, structures: Sequence[Data]) -> Path:
    """An S2EF data set of these structures, as a trainer reads it."""
    write_metadata(folder, write_lmdb(folder / "data.0000.lmdb", structures))
    return folder
