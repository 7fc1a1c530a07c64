"""Corruption: which atoms, how much, and from which random numbers."""

import pytest
import torch

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.corruption import corrupt, sigma_levels, step_generator
from dens_ocp.dens.step_plan import carries_corruption, read
from dens_ocp.errors import DensError
from tests.plans import attach


def many(num_structures=2000, natoms=6, num_fixed=2, seed=0, **options):
    """Corrupt many equal structures; returns (corruption, fixed, batch)."""
    n = num_structures * natoms
    fixed = torch.tensor([1] * num_fixed + [0] * (natoms - num_fixed)).repeat(num_structures)
    batch = torch.arange(num_structures).repeat_interleave(natoms)
    extra = {key: options.pop(key) for key in ("md", "forces", "skip", "stress") if key in options}
    corruption = corrupt(
        **{
            "pos": torch.zeros(n, 3),
            "forces": torch.zeros(n, 3),
            "fixed": fixed,
            "batch": batch,
            "natoms": torch.full((num_structures,), natoms),
            "config": DeNSConfig(**options),
            "generator": step_generator(seed, 0, 1),
            **extra,
        }
    )
    return corruption, fixed, batch


def test_shares_and_noise_are_those_of_algorithm_1():
    corruption, fixed, batch = many(20000, p=0.3, r=0.25, sigma=0.2)
    free = fixed == 0
    # P(at least one of 4 free atoms is picked) = 1 - 0.75^4
    expected = 0.3 * (1 - 0.75**4)
    assert corruption.structure_mask.float().mean() == pytest.approx(expected, abs=0.01)
    assert corruption.noise_mask[free].float().mean() == pytest.approx(0.3 * 0.25, abs=0.005)
    noise = corruption.noise_vec[corruption.noise_mask]
    assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.005)
    assert torch.equal(corruption.sigmas[corruption.noise_mask].unique(), torch.tensor([0.2]))


def test_fixed_atoms_and_unpicked_ones_are_never_touched():
    corruption, fixed, _ = many(p=1, r=1)
    assert torch.equal(corruption.noise_mask, fixed == 0)
    assert (corruption.noise_vec[fixed == 1] == 0).all()
    assert (corruption.sigmas[fixed == 1] == 0).all()
    everything, _, _ = many(p=1, r=1, all_atoms=True)
    assert everything.noise_mask.all()


def test_md_structures_are_never_corrupted():
    md = (torch.arange(2000) % 2).int()
    corruption, _, batch = many(p=1, r=1, md=md)
    assert torch.equal(corruption.structure_mask, md == 0)
    assert not corruption.noise_mask[md.bool()[batch]].any()


def test_choice_per_structure_mixes_a_batch_and_per_batch_does_not():
    mixed, _, _ = many(p=0.5, r=1)
    assert 0.4 < mixed.structure_mask.float().mean() < 0.6
    shares = {
        many(16, p=0.5, r=1, choice="batch", seed=seed)[0].structure_mask.float().mean().item()
        for seed in range(20)
    }
    assert shares == {0.0, 1.0}


@pytest.mark.parametrize("options", [{"p": 0}, {"r": 0}])
def test_nothing_at_p_or_r_zero(options):
    corruption, _, _ = many(**options)
    assert not corruption.noise_mask.any() and (corruption.noise_vec == 0).all()


def test_multi_scale_draws_one_level_per_structure():
    corruption, _, batch = many(p=1, r=1, sigma={"low": 0.01, "high": 1.0, "num_steps": 3})
    levels = torch.tensor([0.01, 0.1, 1.0])
    assert torch.allclose(
        sigma_levels(DeNSConfig(sigma={"low": 0.01, "high": 1.0, "num_steps": 3}).sigma), levels
    )
    mask = corruption.noise_mask
    for structure in range(5):
        own = corruption.sigmas[mask & (batch == structure)]
        assert len(own.unique()) == 1
    for level in levels:
        chosen = mask & torch.isclose(corruption.sigmas[:, 0], level)
        assert chosen.float().sum() / mask.sum() == pytest.approx(1 / 3, abs=0.05)
        assert corruption.noise_vec[chosen].std() == pytest.approx(level.item(), rel=0.05)


def test_limits_of_force_size_and_ratio():
    forces = torch.zeros(12000, 3)
    forces[2] = torch.tensor([3.0, 4.0, 0.0])  # structure 0, free
    forces[6] = torch.tensor([30.0, 40.0, 0.0])  # structure 1, fixed: does not count
    limited, _, _ = many(p=1, r=1, forces=forces, max_force_norm=4.99)
    assert not limited.structure_mask[0] and limited.structure_mask[1:].all()
    assert many(p=1, r=1, forces=forces, max_force_norm=5.0)[0].structure_mask.all()
    assert not many(p=1, r=1, min_num_atoms=7)[0].structure_mask.any()
    assert many(p=1, r=1, min_num_atoms=6)[0].structure_mask.all()
    strict, _, batch = many(p=1, r=0.5, strict_max_ratio=0.5)
    picked = torch.zeros(2000).index_add_(0, batch, strict.noise_mask.float())
    assert picked.max() == 2 and set(picked.tolist()) == {0, 1, 2}


def test_limits_of_stress_and_summed_force():
    """EquiformerV3's ``max_stress_norm`` and ``max_mean_force_norm``."""
    stress = torch.zeros(2000, 3, 3)
    stress[0, 0, 1] = stress[0, 1, 0] = 0.3  # norm 0.3 sqrt(2)
    for form in (stress, stress.view(2000, 9)):
        limited, _, _ = many(p=1, r=1, stress=form, max_stress_norm=0.42)
        assert not limited.structure_mask[0] and limited.structure_mask[1:].all()
        assert many(p=1, r=1, stress=form, max_stress_norm=0.43)[0].structure_mask.all()
    with pytest.raises(DensError, match="max_stress_norm.*have no stress"):
        many(p=1, r=1, max_stress_norm=0.42)
    forces = torch.zeros(12000, 3)
    forces[0], forces[5] = torch.tensor([3.0, 0.0, 0.0]), torch.tensor([0.0, 4.0, 0.0])
    forces[6], forces[7] = torch.tensor([9.0, 0.0, 0.0]), torch.tensor([-9.0, 0.0, 0.0])
    limited, _, _ = many(p=1, r=1, forces=forces, max_net_force=4.99)
    assert not limited.structure_mask[0] and limited.structure_mask[1:].all()
    assert many(p=1, r=1, forces=forces, max_net_force=5.0)[0].structure_mask.all()


def test_structures_to_be_skipped():
    skip = torch.arange(2000) % 3 == 0
    md = (torch.arange(2000) % 2).int()
    for both in ({"skip": skip}, {"skip": skip[:, None]}):
        corruption, _, _ = many(p=1, r=1, **both)
        assert torch.equal(corruption.structure_mask, ~skip)
    corruption, _, _ = many(p=1, r=1, skip=skip, md=md)
    assert torch.equal(corruption.structure_mask, ~skip & (md == 0))


def test_masked_covers_fixed_atoms_which_stay_where_they_are():
    """The authors' mask: drawn for every atom, fixed ones too; only free ones move."""
    options = {"p": 0.5, "r": 0.25, "sigma": 0.2}
    ours, fixed, batch = many(20000, **options)
    masked, _, _ = many(20000, **options, encode="masked")
    free = fixed == 0
    for atoms in (free, ~free):
        share = masked.noise_mask[atoms].float().mean()
        assert share == pytest.approx(0.5 * 0.25, abs=0.005)
        noise = masked.noise_vec[atoms & masked.noise_mask]
        assert noise.std() == pytest.approx(0.2, rel=0.02)
    assert (masked.noise_vec[~masked.noise_mask] == 0).all()
    assert torch.equal(masked.displacement != 0, (masked.noise_vec != 0) & free[:, None])
    # what moves is what moves without the option
    assert torch.equal(masked.noise_mask & free, ours.noise_mask)
    assert torch.equal(masked.displacement, ours.displacement)
    assert torch.equal(ours.displacement, ours.noise_vec)
    everything, _, _ = many(p=1, r=1, encode="masked", all_atoms=True)
    assert (everything.displacement != 0).all()


def test_masked_gives_every_atom_of_a_dens_structure_its_sigma():
    """The authors' ``add_gaussian_noise_schedule_to_position``: one sigma for each structure."""
    schedule = {"low": 0.01, "high": 1.0, "num_steps": 3}
    masked, _, batch = many(p=0.5, r=0.5, sigma=schedule, encode="masked")
    of_structure = masked.sigmas.view(2000, 6)
    assert torch.equal(of_structure, of_structure[:, :1].expand(-1, 6))
    dens = of_structure[:, 0] > 0
    assert dens.float().mean() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(masked.structure_mask & dens, masked.structure_mask)
    ours, _, _ = many(p=0.5, r=0.5, sigma=schedule)
    assert torch.equal(ours.sigmas[:, 0] > 0, ours.noise_mask)


def test_masked_leaves_md_structures_alone():
    md = (torch.arange(2000) % 2).int()
    masked, _, batch = many(p=1, r=1, md=md, encode="masked")
    assert torch.equal(masked.noise_mask, md[batch] == 0)
    assert torch.equal(masked.structure_mask, md == 0)


def test_limits_count_all_atoms_where_all_are_drawn():
    """EquiformerV3's trainer takes mask, forces and number of atoms of the whole structure."""
    forces = torch.zeros(12000, 3)
    forces[2] = torch.tensor([3.0, 4.0, 0.0])  # structure 0, free
    forces[6] = torch.tensor([30.0, 40.0, 0.0])  # structure 1, fixed
    options = {"p": 1, "r": 1, "forces": forces, "encode": "masked"}
    limited, _, _ = many(**options, max_force_norm=5.0)
    assert limited.structure_mask.tolist() == [True, False] + [True] * 1998
    assert many(**options, max_force_norm=50.0)[0].structure_mask.all()
    strict, _, batch = many(p=1, r=0.5, strict_max_ratio=0.5, encode="masked")
    picked = torch.zeros(2000).index_add_(0, batch, strict.noise_mask.float())
    assert picked.max() == 3, "half of six atoms, fixed ones too"
    assert set(picked.tolist()) == {0, 1, 2, 3}


def test_random_numbers_come_from_seed_rank_and_step_alone():
    def draw(seed, rank, step):
        return torch.rand(4, generator=step_generator(seed, rank, step)).tolist()

    torch.manual_seed(0)
    first = draw(0, 0, 1)
    torch.rand(100)
    assert draw(0, 0, 1) == first
    others = [draw(0, 1, 1), draw(0, 0, 2), draw(1, 0, 1), draw(1, 1, 0), draw(0, 1, 0)]
    assert len({tuple(values) for values in [first, *others]}) == 6
    state = torch.get_rng_state()
    many(10)
    assert torch.equal(torch.get_rng_state(), state), "the global generator was used"


def test_attach_and_read(batch):
    before = batch.pos.clone()
    original = batch.pos
    assert not carries_corruption(batch) and not read(batch).noise_mask.any()
    corruption = corrupt(
        pos=batch.pos,
        forces=batch.forces,
        fixed=batch.fixed,
        batch=batch.batch,
        natoms=batch.natoms,
        config=DeNSConfig(p=1, r=0.5),
        generator=step_generator(0, 0, 1),
    )
    attach(batch, corruption)
    assert torch.equal(original, before), "positions were changed in place"
    assert torch.equal(batch.pos - before != 0, corruption.noise_vec != 0)
    again = read(batch)
    assert torch.equal(again.noise_vec, corruption.noise_vec)
    assert torch.equal(again.structure_mask, corruption.structure_mask)
    assert carries_corruption(batch)


def test_one_atom_and_no_free_atom():
    single, _, _ = many(1, natoms=1, num_fixed=0, p=1, r=1)
    assert single.noise_mask.tolist() == [True]
    none, _, _ = many(3, natoms=2, num_fixed=2, p=1, r=1)
    assert not none.structure_mask.any()
