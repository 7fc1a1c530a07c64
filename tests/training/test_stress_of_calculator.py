"""Stress of fairchem's ``OCPCalculator`` with our checkpoints: ASE's order, sign and unit.

The stress of a head is a tensor of its own, not the derivative of an energy. What ASE's stress is,
is therefore shown with a potential that is conservative: a model remembers the labels of one
crystal, and the calculator gives the numerical derivative of the potential's energy.
"""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.calculators.emt import EMT
from ase.stress import voigt_6_to_full_3x3_stress
from e3nn.io import CartesianTensor
from fairchem.core import OCPCalculator
from fairchem.core.datasets import data_list_collater
from fairchem.core.modules.normalization.normalizer import create_normalizer
from fairchem.core.modules.transforms import decompose_tensor
from fairchem.core.preprocessing import AtomsToGraphs

from dens_ocp.relaxation.repeatable_frames import FromGeometry
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN
from tests.crystals import crystal
from tests.runs import make_trainer, small_config

PARTS = {"stress_isotropic": {"irrep_dim": 0}, "stress_anisotropic": {"irrep_dim": 2}}
HEAD = {"module": "rank2_symmetric_head", "output_name": "stress", "decompose": True}
MODELS = {
    "equiformer_v2": SMALL_EQUIFORMER,
    "escn": {**SMALL_ESCN, "num_sphere_samples": 32},
}


def checkpoint(folder, model, normalizers, change=lambda head: None):
    """A file with a model with stress, and its path.

    Args:
        normalizers: mean and rmsd by target. change: is given the head before it is saved.
    """
    settings = small_config(folder, model={**model, "otf_graph": True, "heads": {"stress": HEAD}})
    settings["dataset"] = {}
    settings["outputs"]["stress"] = {"level": "system", "decomposition": PARTS}
    trainer = make_trainer(settings, folder)
    with torch.no_grad():
        change(trainer._unwrapped_model.heads["stress"])
    content = {
        "state_dict": trainer.model.state_dict(), "elementrefs": {},
        "normalizers": {
            name: create_normalizer(mean=mean, rmsd=rmsd).state_dict()
            for name, (mean, rmsd) in normalizers.items()
        },
        "config": {**trainer.config, "dataset": {"src": ""}},
    }  # fmt: skip
    path = folder / "checkpoint.pt"
    torch.save(content, path)
    return path


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_it_is_the_heads_own_tensor(tmp_path, model):
    """Put together by e3nn's change of basis, denormalised by hand."""
    scales = {"stress_isotropic": (-0.02, 0.3), "stress_anisotropic": (0.0, 0.05)}
    path = checkpoint(
        tmp_path, model, scales,
        lambda head: [torch.nn.init.normal_(each, std=0.3) for each in head.parameters()],
    )  # fmt: skip
    atoms = crystal(3)
    atoms.calc = OCPCalculator(checkpoint_path=path, cpu=True, seed=0)
    found = atoms.get_stress(voigt=False)
    graph = AtomsToGraphs(r_energy=False, r_forces=False, r_pbc=True, r_edges=False)
    batch = data_list_collater([graph.convert(atoms)], otf_graph=True)
    with torch.no_grad(), FromGeometry():
        outputs = atoms.calc.trainer.model.eval()(batch)
    parts = [
        outputs[name].flatten() * rmsd + mean for name, (mean, rmsd) in scales.items()
    ]  # fmt: skip
    expected = CartesianTensor("ij=ji").to_cartesian(torch.cat(parts)).numpy()
    scale = float(np.abs(expected).max())
    assert scale > 1e-3 and np.abs(expected[0, 1]) > 1e-3 * scale
    assert found == pytest.approx(expected, abs=1e-6 * scale)
    assert atoms.get_stress() == pytest.approx(
        expected[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]], abs=1e-6 * scale
    )  # xx, yy, zz, yz, xz, xy


def numerical_stress(atoms: Atoms, size: float = 1e-4) -> np.ndarray:
    """dE/d(strain) / V of the atoms' calculator, (3, 3), eV/Angstrom^3."""
    stress = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            energies = []
            for step in (size, -size):
                strain = np.eye(3)
                strain[i, j] += step / 2
                strain[j, i] += step / 2
                strained = atoms.copy()
                strained.set_cell(atoms.cell @ strain, scale_atoms=True)
                strained.calc = atoms.calc
                energies.append(strained.get_potential_energy())
            stress[i, j] = (energies[0] - energies[1]) / (2 * size) / atoms.get_volume()
    return stress


@pytest.mark.parametrize("seed", [3, 4])
def test_order_sign_and_unit(tmp_path, seed):
    """Labels go the way of a training set: ASE's record, fairchem's parts, a model that gives their
    values for any crystal, and its calculator."""
    atoms = crystal(seed)
    atoms.calc = EMT()
    expected = numerical_stress(atoms)
    upper = np.abs(expected[np.triu_indices(3)])
    assert np.ptp(upper) > 1e-3 and len({round(each, 5) for each in upper}) == 6
    graph = AtomsToGraphs(r_energy=True, r_forces=True, r_stress=True, r_pbc=True, r_edges=False)
    atoms.get_stress()
    record = decompose_tensor(
        graph.convert(atoms), {"tensor": "stress", "rank": 2, "decomposition": PARTS}
    )
    path = checkpoint(
        tmp_path, SMALL_EQUIFORMER, {},
        lambda head: [each.zero_() for each in head.parameters()],
    )  # fmt: skip
    other = crystal(seed + 3)
    other.calc = OCPCalculator(checkpoint_path=path, cpu=True, seed=0)
    for name in PARTS:  # a checkpoint holds one number for the mean
        mean = record[name].flatten()
        other.calc.trainer.normalizers[name] = create_normalizer(mean=mean, rmsd=1.0)
    assert other.get_stress(voigt=False) == pytest.approx(expected, abs=1e-5)
    assert voigt_6_to_full_3x3_stress(other.get_stress()) == pytest.approx(expected, abs=1e-5)


def test_a_stretched_crystal_has_positive_stress():
    """The sign of the labels: it wants to shrink."""
    for factor, sign in ((1.03, 1), (0.97, -1)):
        atoms = crystal(3)
        atoms.set_cell(atoms.cell * factor, scale_atoms=True)
        atoms.calc = EMT()
        for stress in (atoms.get_stress(voigt=False), numerical_stress(atoms)):
            assert (sign * np.diag(stress) > 0).all()
