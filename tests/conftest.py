"""Fixtures of all tests: a small batch, small models, the team's shared reference data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.build import add_adsorbate, fcc111
from torch_geometric.data import Batch, Data

import dens_ocp  # noqa: F401 (registers)

import fairchem.core.datasets.oc22_lmdb_dataset  # noqa: F401  # isort: skip (registers it)

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

SMALL_EQUIFORMER = {
    "name": "equiformer_v2_dens",
    "max_neighbors": 12,
    "max_radius": 6.0,
    "num_layers": 2,
    "sphere_channels": 8,
    "attn_hidden_channels": 8,
    "num_heads": 2,
    "attn_alpha_channels": 4,
    "attn_value_channels": 4,
    "ffn_hidden_channels": 8,
    "norm_type": "layer_norm_sh",
    "lmax_list": [3],
    "mmax_list": [2],
    "grid_resolution": 20,
    "edge_channels": 8,
    "attn_activation": "silu",
    "ffn_activation": "silu",
    "use_grid_mlp": True,
    "alpha_drop": 0.0,
    "drop_path_rate": 0.0,
    "weight_init": "uniform",
}

SMALL_ESCN = {
    "name": "escn_dens",
    "max_neighbors": 12,
    "cutoff": 6.0,
    "num_layers": 2,
    "sphere_channels": 8,
    "hidden_channels": 8,
    "edge_channels": 8,
    "lmax_list": [2],
    "mmax_list": [2],
    # with fewer points the force block is equivariant to the quadrature only
    "num_sphere_samples": 1024,
    "distance_resolution": 0.2,
    "otf_graph": True,
}

SMALL_ESEN = {
    "name": "esen_dens",
    "max_neighbors": 12,
    "cutoff": 6.0,
    "num_layers": 2,
    "sphere_channels": 8,
    "hidden_channels": 8,
    "edge_channels": 8,
    "lmax": 2,
    "mmax": 2,
    "num_distance_basis": 16,
    "act_type": "gate",
    "mlp_type": "spectral",
    "use_envelope": True,
}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The team's folder of reference data, beside the project; not part of it."""
    if not SHARED.is_dir():
        pytest.skip("no folder ../shared with reference data beside the project")
    return SHARED


def slab(metal: str = "Cu", adsorbate: str = "O", seed: int = 0, size=(2, 2, 2)) -> Data:
    """A rattled slab with an adsorbate: half of its atoms fixed, random labels."""
    atoms = fcc111(metal, size=size, vacuum=8.0)
    add_adsorbate(atoms, adsorbate, height=1.4, position="fcc")
    atoms.pbc = True
    atoms.rattle(0.1, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    positions = torch.tensor(atoms.positions, dtype=torch.float32)
    fixed = torch.tensor([1 if tag == 2 else 0 for tag in atoms.get_tags()])
    tags = torch.tensor([2 if tag == 0 else 2 - tag for tag in atoms.get_tags()]).clamp(min=0)
    return Data(
        pos=positions,
        cell=torch.tensor(atoms.cell.array, dtype=torch.float32)[None],
        atomic_numbers=torch.tensor(atoms.numbers),
        natoms=len(atoms),
        tags=tags,
        fixed=fixed,
        energy=torch.randn(1, generator=generator).item(),
        forces=torch.randn(len(atoms), 3, generator=generator),
        sid=seed,
        fid=0,
    )


@pytest.fixture
def batch() -> Batch:
    """Three structures of different sizes and elements."""
    return Batch.from_data_list(
        [slab("Cu", "O", 0), slab("Pt", "N", 1, (2, 2, 3)), slab("Al", "H", 2, (1, 2, 2))]
    )


def build_model(config: dict, seed: int = 0):
    """Build a model as the trainer does, with seeded weights."""
    from fairchem.core.common.registry import registry

    options = dict(config)
    torch.manual_seed(seed)
    return registry.get_model_class(options.pop("name"))(**options)
