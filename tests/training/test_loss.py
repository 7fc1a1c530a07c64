"""The loss: hand-computed values, and fairchem's own DeNS, which is off."""

import pytest
import torch
from fairchem.core.modules.loss import DDPLoss
from torch_geometric.data import Batch, Data

from dens_ocp.dens.loss import NoiseTarget, force_and_noise_loss, target_loss
from dens_ocp.dens.step_plan import Corruption
from tests.plans import attach
from tests.runs import make_trainer, small_config, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def four_atoms():
    """Two structures of two atoms; atom 1 is fixed, atom 2 corrupted by (0, 0, 0.2)."""
    batch = Batch.from_data_list(
        [
            Data(pos=torch.zeros(2, 3), forces=torch.tensor([[1.0, 0, 0], [9.0, 0, 0]]),
                 fixed=torch.tensor([0, 1]), energy=2.0, natoms=2,
                 atomic_numbers=torch.tensor([1, 1])),
            Data(pos=torch.zeros(2, 3), forces=torch.tensor([[0.0, 2, 0], [0.0, 0, 4]]),
                 fixed=torch.tensor([0, 0]), energy=-1.0, natoms=2,
                 atomic_numbers=torch.tensor([1, 1])),
        ]
    )  # fmt: skip
    noise = torch.zeros(4, 3)
    noise[2, 2] = 0.2
    mask = torch.tensor([False, False, True, False])
    sigmas = torch.where(mask, 0.1, 0.0)[:, None]
    attach(batch, Corruption(mask, noise, sigmas, torch.tensor([False, True])))
    outputs = {
        "energy": torch.tensor([[1.0], [1.0]], requires_grad=True),
        "forces": torch.zeros(4, 3, requires_grad=True),
        "noise": torch.full((4, 3), 0.0, requires_grad=True),
    }
    return batch, outputs


# normalised with std 1.7 (forces), mean -0.3 and std 1.4 (energy); sigma 0.1
ENERGY = 2 * (abs((2 + 0.3) / 1.4 - 1) + abs((-1 + 0.3) / 1.4 - 1)) / 2
FORCES = 100 * (1 / 1.7 + 4 / 1.7) / 3  # free, uncorrupted: atoms 0 and 3; three atoms count
NOISE = 10 * (0.2 / 0.1) / 3


def test_hand_computed(data, tmp_path):
    trainer = make_trainer(small_config(data), tmp_path)
    trainer.model.train()
    batch, outputs = four_atoms()
    loss = trainer._compute_loss(outputs, batch)
    assert loss.item() == pytest.approx(ENERGY + FORCES + NOISE, rel=1e-6)
    terms = {name: term.item() for name, term in trainer.loss_terms(outputs, batch).items()}
    assert terms == pytest.approx({"energy": ENERGY, "forces": FORCES, "noise": NOISE}, rel=1e-6)
    loss.backward()
    assert (outputs["forces"].grad[[1, 2]] == 0).all(), "fixed and corrupted atoms have no force"
    assert (outputs["noise"].grad[[0, 1, 3]] == 0).all(), "only corrupted atoms have noise"


def test_fairchems_own_dens_loss_adds_a_third_term(data, tmp_path):
    """fairchem-core 1.10.0 scores forces and noise a second time, over all atoms, with targets
    normalised twice."""
    config = small_config(
        data, dens=None, use_denoising_pos=True, denoising_pos_coefficient=10,
        denoising_pos_params={"prob": 1.0, "fixed_noise_std": True, "std": 0.1,
                              "corrupt_ratio": 0.5},
    )  # fmt: skip
    ours = make_trainer(config, tmp_path)
    ours.model.train()
    theirs = make_trainer(config, tmp_path, name="equiformerv2_dens")
    batch, outputs = four_atoms()
    mixed = torch.where(batch.noise_mask[:, None], outputs["noise"], outputs["forces"])
    expected = ours._compute_loss(outputs, batch).item()
    actual = theirs._compute_loss({"energy": outputs["energy"], "forces": mixed}, batch).item()
    twice = torch.where(batch.noise_mask[:, None], batch.noise_vec / 0.1, batch.forces / 1.7) / 1.7
    third = 100 * twice.norm(dim=-1).mean().item()
    assert expected == pytest.approx(ENERGY + FORCES + NOISE, rel=1e-6)
    assert actual == pytest.approx(expected + third, rel=1e-5)
    assert actual > 2 * expected


def test_energy_of_dens_structures_off(data, tmp_path):
    batch, outputs = four_atoms()
    off = small_config(data, dens={"p": 0.5, "r": 0.5, "sigma": 0.1, "energy": False})
    ablation = small_config(data)
    ablation["model"]["use_denoising_energy"] = False
    for config in (off, ablation):
        trainer = make_trainer(config, tmp_path)
        trainer.model.train()
        terms = trainer.loss_terms(outputs, batch)
        expected = 2 * abs((2 + 0.3) / 1.4 - 1) / 2
        assert terms["energy"].item() == pytest.approx(expected, rel=1e-6)


def test_decay_of_lambda(data, tmp_path):
    dens = {"sigma": 0.1, "coefficient": 10, "coefficient_decay": "linear"}
    trainer = make_trainer(small_config(data, dens=dens), tmp_path)  # 8 steps
    batch, outputs = four_atoms()
    values = []
    for trainer.step in (1, 5, 8):
        values.append(trainer.loss_terms(outputs, batch)["noise"].item())
    assert values == pytest.approx([NOISE, NOISE / 2, NOISE / 8], rel=1e-6)


def test_separate_denominators(data, tmp_path):
    """Two free atoms that are not corrupted, one that is: means over two and over one."""
    dens = {"sigma": 0.1, "coefficient": 10, "denominator": "separate"}
    trainer = make_trainer(small_config(data, dens=dens), tmp_path)
    batch, outputs = four_atoms()
    trainer._compute_loss(outputs, batch).backward()
    terms = {name: term.item() for name, term in trainer.loss_terms(outputs, batch).items()}
    assert terms == pytest.approx(
        {"energy": ENERGY, "forces": FORCES * 3 / 2, "noise": NOISE * 3}, rel=1e-6
    )
    assert (outputs["forces"].grad[[1, 2]] == 0).all()
    assert (outputs["noise"].grad[[0, 1, 3]] == 0).all()


@pytest.mark.parametrize("name", ["l2mae", "mae", "mse"])
def test_any_configured_function(name):
    """Two atoms, one corrupted, against the formula of the function."""
    loss_fn = DDPLoss(name, reduction="mean")
    forces, noise = (
        torch.tensor([[0.0, 3, 4], [0.0, 0, 0]]),
        torch.tensor([[0.0, 0, 0], [6.0, 0, 8]]),
    )
    mask = torch.tensor([False, True])
    terms = force_and_noise_loss(
        loss_fn, 100.0, forces=forces, force_target=torch.zeros(2, 3), noise=noise,
        corruption=Corruption(mask, torch.zeros(2, 3), torch.zeros(2, 1), torch.tensor([True])),
        counted=torch.tensor([True, True]), natoms=torch.tensor([2]),
        noise_target=NoiseTarget(0.1, 10.0),
    )  # fmt: skip
    expected = {"l2mae": (5 / 2, 10 / 2), "mae": (7 / 6, 14 / 6), "mse": (25 / 6, 100 / 6)}[name]
    assert terms["forces"].item() == pytest.approx(100 * expected[0])
    assert terms["noise"].item() == pytest.approx(10 * expected[1])


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_other_targets_equal_fairchems_loss(reduction):
    loss_fn = DDPLoss("mae", reduction=reduction)
    prediction, target = torch.randn(5, 1), torch.randn(5, 1)
    natoms = torch.full((5,), 3)
    ours = target_loss(loss_fn, 2.0, prediction=prediction, target=target, natoms=natoms)
    assert torch.allclose(ours, 2 * loss_fn(prediction, target, natoms=natoms))


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("counted", [[False, False], [True, False], [False, True]])
@pytest.mark.parametrize("corrupted", [[False, False], [True, True]])
def test_nothing_divides_by_zero(counted, corrupted, separate):
    loss_fn = DDPLoss("l2mae", reduction="mean")
    forces = torch.randn(2, 3, requires_grad=True)
    noise = torch.randn(2, 3, requires_grad=True)
    terms = force_and_noise_loss(
        loss_fn, 100.0, forces=forces, force_target=torch.zeros(2, 3), noise=noise,
        corruption=Corruption(
            torch.tensor(corrupted), torch.zeros(2, 3), torch.zeros(2, 1), torch.tensor([True])
        ),
        counted=torch.tensor(counted), natoms=torch.tensor([2]),
        noise_target=NoiseTarget(0.1, 10.0, separate),
    )  # fmt: skip
    total = terms["forces"] + terms["noise"]
    assert total.isfinite()
    total.backward()
    assert forces.grad.isfinite().all() and noise.grad.isfinite().all()
