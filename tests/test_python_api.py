"""``dens_ocp.corrupt``, ``loss``, ``load`` and ``models``, and the programs of docs/python.md."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from ase.build import fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

import dens_ocp
from dens_ocp.errors import DensError
from tests.conftest import ROOT
from tests.runs import environment, make_trainer, small_config, write_data
from tests.test_readme import blocks

PROGRAMS = [text for test, text in blocks(ROOT / "docs" / "python.md", "python") if test]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def slab():
    atoms = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    atoms.set_constraint(FixAtoms(mask=atoms.get_tags() > 1))
    forces = np.random.default_rng(0).normal(size=(12, 3))
    stress = np.arange(6) / 100
    atoms.calc = SinglePointCalculator(atoms, energy=1.0, forces=forces, stress=stress)
    return atoms


def test_the_documents_programs_run(tmp_path):
    assert len(PROGRAMS) == 2
    for text in PROGRAMS:
        done = subprocess.run(
            [sys.executable, "-c", text], cwd=tmp_path, env=environment(), text=True,
            capture_output=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    assert "'noise'" in done.stdout


def test_importing_imports_neither_torch_nor_fairchem():
    code = "import sys, dens_ocp; dir(dens_ocp); print('torch' in sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    assert shown.strip() == "False"


def test_all_public_names_exist_and_say_what_they_are():
    for module in (dens_ocp, dens_ocp.models):
        for name in module.__all__:
            assert getattr(module, name).__doc__, name
            assert name in dir(module)
    with pytest.raises(AttributeError, match="loads"):
        _ = dens_ocp.loads


def test_an_ase_structure_is_corrupted(slab):
    before = slab.positions.copy()
    noisy = dens_ocp.corrupt(slab, sigma=0.1, r=0.5, seed=3)
    corrupted, noise = noisy.arrays["corrupted"], noisy.arrays["noise"]
    assert np.array_equal(slab.positions, before) and noisy.calc is None
    assert 0 < corrupted.sum() < 4 and not corrupted[slab.get_tags() > 1].any()
    np.testing.assert_allclose(noisy.positions - before, noise, atol=1e-12)
    assert (noise[~corrupted] == 0).all() and (noise[corrupted] != 0).all()
    assert np.array_equal(noisy.arrays["original_forces"], slab.get_forces(apply_constraint=False))


def test_random_numbers_follow_from_seed_rank_and_step(slab):
    def noise(**where):
        return dens_ocp.corrupt(slab, r=1.0, **where).arrays["noise"]

    assert np.array_equal(noise(seed=1, rank=2, step=3), noise(seed=1, rank=2, step=3))
    for other in ({"seed": 2}, {"rank": 1}, {"step": 1}):
        assert not np.array_equal(noise(), noise(**other))


def test_options_of_an_ase_structure_hold(slab):
    config = dens_ocp.DeNSConfig(p=0.0)
    assert not dens_ocp.corrupt(slab, config).arrays["corrupted"].any()
    assert dens_ocp.corrupt(slab, config, p=1.0, r=1.0).arrays["corrupted"].sum() == 4
    assert dens_ocp.corrupt(slab, r=1.0, all_atoms=True).arrays["corrupted"].all()
    assert not dens_ocp.corrupt(slab, r=1.0, max_force_norm=0.01).arrays["corrupted"].any()
    # the norm of the whole tensor: of Voigt's numbers off the diagonal counts twice
    stress = slab.get_stress(voigt=False)
    limit = np.linalg.norm(stress)
    for factor, kept in ((0.999, False), (1.001, True)):
        noisy = dens_ocp.corrupt(slab, r=1.0, max_stress_norm=limit * factor)
        assert noisy.arrays["corrupted"].any() == kept


def test_a_structure_without_forces(slab):
    slab.calc = None
    assert "original_forces" not in dens_ocp.corrupt(slab).arrays
    with pytest.raises(DensError, match="has no forces"):
        dens_ocp.corrupt(slab, max_force_norm=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sigmaa": 0.1}, "sigmaa.*did you mean 'sigma'"), ({"p": 2}, "corrupt.p: 2 must be less")],
)
def test_mistakes_are_named(slab, options, message):
    with pytest.raises(DensError, match=message):
        dens_ocp.corrupt(slab, **options)


@pytest.mark.parametrize(
    "dens",
    [
        {"p": 0.7, "coefficient": 10},
        {"p": 0.7, "energy": False},
        {"p": 1.0, "r": 1.0, "all_atoms": True, "denominator": "separate"},
        {"p": 0.7, "coefficient_decay": "linear"},
    ],
    ids=str,
)
def test_batch_and_loss_are_those_of_the_trainer(data, tmp_path, dens):
    trainer = make_trainer(small_config(data, dens=dens), tmp_path)
    trainer.model.train()
    trainer.step = 5
    (batch, *_) = trainer.train_loader
    ours = batch.clone()
    config = trainer.dens
    outputs = trainer._forward(batch)
    expected = trainer.loss_terms(outputs, batch)

    noisy = dens_ocp.corrupt(ours, config, seed=trainer.seed, step=5)
    assert torch.equal(noisy.pos, batch.pos) and not torch.equal(ours.pos, noisy.pos)
    torch.manual_seed(0)
    terms = dens_ocp.loss(
        {name: outputs[name] for name in ("energy", "forces", "noise")}, noisy, config, energy=2,
        forces=100, normalizers=trainer.normalizers, step=5, total_steps=trainer.last_step,
    )  # fmt: skip
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name])
    assert terms["noise"] > 0


def test_a_batch_that_cannot_be_corrupted(data, tmp_path):
    trainer = make_trainer(small_config(data), tmp_path)
    (batch, *_) = trainer.train_loader
    noisy = dens_ocp.corrupt(batch, p=1.0)
    with pytest.raises(DensError, match="corrupted already"):
        dens_ocp.corrupt(noisy, p=1.0)
    del batch.forces
    with pytest.raises(DensError, match="has no forces; make it with"):
        dens_ocp.corrupt(batch)


def test_load_gives_a_calculator_and_names_mistakes(data, tmp_path, slab, caplog, recwarn):
    trainer = make_trainer(small_config(data), tmp_path, is_debug=False)
    trainer.save(checkpoint_file="checkpoint.pt", training_state=False)
    (path,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
    slab.pbc = True
    caplog.clear()
    recwarn.clear()
    slab.calc = dens_ocp.load(path, cpu=True)
    assert not caplog.records
    assert not any("torch.load" in str(each.message) for each in recwarn.list)
    assert np.isfinite(slab.get_potential_energy()) and slab.get_forces().shape == (12, 3)
    with pytest.raises(DensError, match="does not exist"):
        dens_ocp.load(tmp_path / "none.pt")
    (tmp_path / "half.pt").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DensError, match="half.pt is damaged"):
        dens_ocp.load(tmp_path / "half.pt")
