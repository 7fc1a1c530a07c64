"""Small molecules without a periodic box: records and LMDBs, with energies and forces of EMT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from ase.calculators.emt import EMT
from torch_geometric.data import Batch, Data

from tests.lmdbs import write_lmdb

SMALL_EQUIFORMER_L2 = {
    "name": "equiformer_dens",
    "irreps_node_embedding": "8x0e+4x1e+2x2e",
    "irreps_sh": "1x0e+1x1e+1x2e",
    "irreps_feature": "16x0e+8x1e+4x2e",
    "irreps_head": "4x0e+2x1e+1x2e",
    "irreps_mlp_mid": "16x0e+8x1e+4x2e",
    "num_layers": 2,
    "num_heads": 2,
    "number_of_basis": 8,
    "fc_neurons": [8, 8],
}


def record(name: str = "CH3CH2OH", seed: int = 0, rattle: float = 0.05) -> Data:
    """A rattled molecule as the converters write it: no cell, energy in eV, forces in eV/A."""
    atoms = molecule(name)
    atoms.rattle(rattle, seed=seed)
    atoms.calc = EMT()
    return Data(
        pos=torch.tensor(atoms.positions, dtype=torch.float32),
        atomic_numbers=torch.tensor(atoms.numbers),
        natoms=len(atoms),
        fixed=torch.zeros(len(atoms)),
        energy=atoms.get_potential_energy(),
        forces=torch.tensor(atoms.get_forces(), dtype=torch.float32),
        sid=seed,
        fid=0,
    )


def batch_of(*names: str, dtype: torch.dtype = torch.float64) -> Batch:
    """A batch of rattled molecules."""
    batch = Batch.from_data_list([record(name, seed) for seed, name in enumerate(names)])
    batch.pos, batch.forces = batch.pos.to(dtype), batch.forces.to(dtype)
    return batch


def write_molecules(folder: Path, count: int, seed: int = 0, name: str = "CH3CH2OH") -> Path:
    """An LMDB folder of one molecule's frames, with OC20's names of labels."""
    records = [record(name, seed * 1000 + index) for index in range(count)]
    for each in records:
        each.y, each.force = each.energy, each.forces
        del each.energy, each.forces
    write_lmdb(folder / "data.0000.lmdb", records)
    natoms = np.array([each.natoms for each in records])
    np.savez(folder / "metadata.npz", natoms=natoms, neighbors=natoms * (natoms - 1))
    return folder
