"""fairchem's ``OCPCalculator`` with our checkpoints: one structure has one energy."""

import numpy as np
import pytest
import torch
from ase import units
from ase.build import add_adsorbate, fcc111
from ase.md.verlet import VelocityVerlet

from dens_ocp.relaxation.repeatable_frames import FromGeometry
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN
from tests.runs import make_trainer, small_config

# few orders and a coarse grid, as in small models: energies depend on the frames
COARSE = {"lmax_list": [3], "mmax_list": [1], "grid_resolution": 8}
MODELS = {
    "equiformer_v2": {**SMALL_EQUIFORMER, **COARSE, "fast": True},
    "equiformer_v2, fairchem's path": {**SMALL_EQUIFORMER, **COARSE, "fast": False},
    "escn": {**SMALL_ESCN, "mmax_list": [1], "num_sphere_samples": 32, "fast": True},
}


@pytest.fixture(params=MODELS.values(), ids=MODELS.keys())
def checkpoint(request, tmp_path):
    settings = small_config(tmp_path, model=request.param)
    settings["dataset"] = {}
    trainer = make_trainer(settings, tmp_path)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(1.5)
    state = {"state_dict": trainer.model.state_dict(), "normalizers": {}, "elementrefs": {}}
    path = tmp_path / "checkpoint.pt"
    torch.save({**state, "config": {**trainer.config, "dataset": {"src": ""}}}, path)
    return path


def calculator(path, **options):
    from fairchem.core import OCPCalculator

    return OCPCalculator(checkpoint_path=path, cpu=True, **options)


def structure():
    atoms = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    add_adsorbate(atoms, "O", 1.3, "fcc")
    atoms.pbc = True
    atoms.rattle(0.1, seed=0)
    return atoms


def both(atoms, calc):
    atoms = atoms.copy()
    atoms.calc = calc
    return atoms.get_potential_energy(), atoms.get_forces()


def test_repeated_calls_are_equal_to_the_bit(checkpoint):
    atoms, calc = structure(), calculator(checkpoint, seed=0)
    energy, forces = both(atoms, calc)
    others = (calc, calc, calculator(checkpoint, seed=5), calculator(checkpoint))
    before = torch.get_rng_state()
    for other in others:
        other.reset()
        again, forces_again = both(atoms, other)
        assert again == energy and np.array_equal(forces_again, forces)
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn


def test_the_order_of_atoms_and_the_place_do_not_matter(checkpoint):
    atoms, calc = structure(), calculator(checkpoint, seed=0)
    energy, forces = both(atoms, calc)
    order = np.random.default_rng(0).permutation(len(atoms))
    permuted, of_permuted = both(atoms[order], calc)
    assert permuted == pytest.approx(energy, abs=1e-5)
    assert of_permuted == pytest.approx(forces[order], abs=1e-5)
    if "escn" in calc.trainer.config["model"]["name"]:
        return
    # with fairchem's random frames they do: this model is a test of the frames
    batch = calc.a2g.convert(atoms)
    from fairchem.core.datasets import data_list_collater

    model = calc.trainer.model.eval()
    energies = []
    with torch.no_grad():
        for seed in range(3):
            torch.manual_seed(seed)
            energies.append(float(model(data_list_collater([batch], otf_graph=True))["energy"]))
    assert np.ptp(energies) > 1e-5 * abs(energies[0])


def test_two_runs_of_molecular_dynamics_are_equal(checkpoint):
    positions = []
    for seed in (0, 1):
        atoms = structure()
        atoms.calc = calculator(checkpoint, seed=seed)
        VelocityVerlet(atoms, 1.0 * units.fs).run(5)
        positions.append(atoms.positions)
    assert np.array_equal(*positions)


def test_frames_of_any_direction():
    """Rotations that turn the edge to the y axis, for edges along the axes and diagonals too."""
    from fairchem.core.models.equiformer_v2.edge_rot_mat import init_edge_rot_mat

    grid = torch.cartesian_prod(*3 * [torch.arange(-2.0, 3.0)])
    edges = grid[grid.norm(dim=1) > 0]
    edges = torch.cat([edges, torch.randn(1000, 3)]).double()
    with FromGeometry():
        frames, again = init_edge_rot_mat(edges), init_edge_rot_mat(edges.flip(0)).flip(0)
    assert torch.equal(frames, again)
    unit = torch.eye(3, dtype=torch.float64)
    assert torch.allclose(frames @ frames.transpose(1, 2), unit.expand_as(frames), atol=1e-9)
    assert torch.allclose(torch.linalg.det(frames), unit.new_ones(len(frames)))
    turned = (frames @ edges[:, :, None])[:, :, 0]
    assert torch.allclose(turned[:, 1], edges.norm(dim=1))
    # a small turn of the edge is a small turn of its frame, along the axes and diagonals
    nearby = grid[grid.norm(dim=1) > 0].double()
    with FromGeometry():
        moved = init_edge_rot_mat(nearby + 1e-6 * torch.randn_like(nearby))
    assert (moved - frames[: len(nearby)]).abs().max() < 1e-4
