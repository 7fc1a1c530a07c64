"""Fixed atoms as the authors' OC20/OC22 code treats them: a reading of it by hand, and fairchem's
copy of it, against ``encode: masked``, which their keys mean."""

import numpy as np
import pytest
import torch
from fairchem.core.models.equiformer_v2.trainers.dens_trainer import (
    add_gaussian_noise_schedule_to_position,
    add_gaussian_noise_to_position,
    compute_atomwise_denoising_pos_and_force_hybrid_loss,
)

from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN
from tests.runs import make_trainer, small_config, write_data

STD, FORCE_STD, ENERGY_MEAN, ENERGY_STD = 0.1, 1.7, -0.3, 1.4  # of tests/runs.py
MODELS = {"eqv2": SMALL_EQUIFORMER, "escn": SMALL_ESCN, "esen": SMALL_ESEN}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def authors_keys(**params):
    return {
        "dens": None,
        "use_denoising_pos": True,
        "denoising_pos_coefficient": 10,
        "denoising_pos_params": {
            "prob": 1.0, "fixed_noise_std": True, "std": STD, "corrupt_ratio": 0.5, **params,
        },
    }  # fmt: skip


def trainer_of(data, folder, options, model="eqv2", free_only=True):
    config = small_config(data, model=MODELS[model], **options)
    config["outputs"]["forces"]["train_on_free_atoms"] = free_only
    return make_trainer(config, folder)


def step_of(trainer):
    """A step's batch, outputs and loss; gradients are in the model."""
    batch = next(iter(trainer.train_loader))
    before = batch.pos.clone()
    trainer.step = 1
    trainer.model.train()
    torch.manual_seed(0)
    outputs = trainer._forward(batch)
    loss = trainer._compute_loss(outputs, batch)
    trainer.model.zero_grad()
    loss.backward()
    return batch, before, outputs, loss


def gradients(trainer):
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in trainer._unwrapped_model.named_parameters()
    }


def theirs_by_hand(trainer, batch, original, *, all_atoms, free_only):
    """Their algorithm, atom by atom, from the mask and the noise alone.

    Positions of masked atoms move unless they are fixed (all with ``all_atoms``); the forces of
    masked atoms are encoded; each atom that counts gives the length of the error of its noise if it
    is masked, or of its force, times the coefficient; the mean over the atoms that count. Free
    atoms count, with ``all_atoms`` masked ones too; all without ``train_on_free_atoms``.
    """
    mask, noise = batch.noise_mask, batch.noise_vec
    position = original.clone()
    for atom in range(len(position)):
        if mask[atom] and (all_atoms or batch.fixed[atom] == 0):
            position[atom] += noise[atom]
    assert torch.equal(position, batch.pos)
    fresh = batch.clone()
    if "scored" in fresh:
        del fresh.scored
    torch.manual_seed(0)
    outputs = trainer._unwrapped_model.train()(fresh)
    lengths = []
    for atom in range(len(position)):
        counts = batch.fixed[atom] == 0 or (all_atoms and mask[atom]) or not free_only
        if not counts:
            continue
        if mask[atom]:
            lengths.append(10 * (outputs["noise"][atom] - noise[atom] / STD).norm())
        else:
            error = outputs["forces"][atom] - batch.forces[atom] / FORCE_STD
            lengths.append(100 * error.norm())
    energy = (outputs["energy"].view(-1) - (batch.energy - ENERGY_MEAN) / ENERGY_STD).abs()
    loss = 2 * energy.mean() + torch.stack(lengths).mean()
    # fairchem's own function of the last term says the same
    counted = (batch.fixed == 0)[:, None]
    if all_atoms:
        counted = counted | mask[:, None]
    targets = torch.where(mask[:, None], noise / STD, batch.forces / FORCE_STD)
    hybrid = compute_atomwise_denoising_pos_and_force_hybrid_loss(
        pred=torch.where(mask[:, None], outputs["noise"], outputs["forces"]),
        target=targets, noise_mask=mask[:, None], force_mult=100, denoising_pos_mult=10,
        mask=counted if free_only else None,
    )  # fmt: skip
    assert hybrid.item() == pytest.approx(torch.stack(lengths).mean().item(), rel=1e-5)
    trainer.model.zero_grad()
    loss.backward()
    return loss.item()


@pytest.mark.parametrize("free_only", [True, False], ids=["free atoms count", "all count"])
@pytest.mark.parametrize("all_atoms", [False, True], ids=["fixed stay", "fixed move"])
@pytest.mark.parametrize("model", MODELS)
def test_their_keys_train_as_their_code(data, tmp_path, model, all_atoms, free_only):
    options = authors_keys(all_atoms=all_atoms)
    trainer = trainer_of(data, tmp_path, options, model, free_only)
    batch, original, _, loss = step_of(trainer)
    fixed = batch.fixed == 1
    assert batch.noise_mask[fixed].any() and not batch.noise_mask[fixed].all()
    assert (batch.noise_vec[batch.noise_mask] != 0).all()
    ours = gradients(trainer)
    theirs = theirs_by_hand(trainer, batch, original, all_atoms=all_atoms, free_only=free_only)
    assert loss.item() == pytest.approx(theirs, rel=1e-5)
    for name, gradient in gradients(trainer).items():
        scale = gradient.abs().max().clamp(min=1e-3)
        assert ((ours[name] - gradient).abs().max() / scale).item() < 1e-3, name


def test_our_default_encodes_corrupted_atoms_only(data, tmp_path):
    """The same draws move the same atoms; the encoded forces of fixed ones change the gradient."""
    same = {"p": 1, "r": 0.5, "sigma": STD, "coefficient": 10, "choice": "batch"}
    found = {}
    for encode in ("corrupted", "masked"):
        trainer = trainer_of(data, tmp_path, {"dens": {**same, "encode": encode}})
        batch, _, _, loss = step_of(trainer)
        flat = torch.cat([g.flatten() for g in gradients(trainer).values()])
        found[encode] = batch, loss.item(), flat
    (ours, our_loss, our_gradient), (theirs, their_loss, their_gradient) = found.values()
    assert torch.equal(ours.pos, theirs.pos)
    assert not ours.noise_mask[ours.fixed == 1].any() and theirs.noise_mask[ours.fixed == 1].any()
    assert our_loss != pytest.approx(their_loss, rel=1e-5)
    assert (our_gradient - their_gradient).norm() / their_gradient.norm() > 1e-3
    keys = trainer_of(data, tmp_path, authors_keys())
    _, _, _, loss = step_of(keys)
    assert loss.item() == pytest.approx(their_loss, rel=1e-6), "their keys mean encode: masked"


@pytest.mark.parametrize("all_atoms", [False, True])
@pytest.mark.parametrize("schedule", [False, True])
def test_fields_of_a_batch_are_those_of_fairchems_copy(data, tmp_path, schedule, all_atoms):
    """Which fields are set for which atoms: mask, noise, sigma and movement by kind of atom."""
    params = {"all_atoms": all_atoms}
    if schedule:
        params |= {"fixed_noise_std": False, "std_low": 0.05, "std_high": 0.2, "num_steps": 5}
    trainer = trainer_of(data, tmp_path, authors_keys(**params))
    ours = next(iter(trainer.train_loader))
    theirs, original = ours.clone(), ours.pos.clone()
    trainer.step = 1
    trainer.model.train()
    trainer._forward(ours)
    torch.manual_seed(0)
    np.random.seed(0)
    given = {"corrupt_ratio": 0.5, "all_atoms": all_atoms}
    if schedule:
        add_gaussian_noise_schedule_to_position(theirs, 0.05, 0.2, 5, **given)
    else:
        add_gaussian_noise_to_position(theirs, STD, **given)
    for batch in (ours, theirs):
        moved = (batch.pos != original).all(dim=1)
        stay = (batch.fixed == 1) & (not all_atoms)
        assert torch.equal(moved, batch.noise_mask & ~stay)
        assert torch.equal((batch.noise_vec != 0).all(dim=1), batch.noise_mask)
        assert batch.noise_mask[batch.fixed == 1].any()
        if schedule:
            levels = np.exp(np.linspace(np.log(0.05), np.log(0.2), 5))
            assert np.isin(np.round(batch.sigmas.unique().double(), 5), np.round(levels, 5)).all()
            for structure in range(3):
                assert len(batch.sigmas[batch.batch == structure].unique()) == 1
