"""``dens: auto``: evidence from data whose answers are known, the rules, the paper's settings."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch_geometric.data import Data

from dens_ocp.auto.evidence import Evidence, observe, sample, superposed
from dens_ocp.auto.resolve import force_coefficient, pick, resolve, rounded
from dens_ocp.dens.config import DeNSConfig, parse_dens_config
from dens_ocp.errors import DensError
from tests.conftest import slab

ASPIRIN = Evidence(950, 950, 21, 1.09, 1.2, 0.3, 500)
OC20 = Evidence(2_000_000, 1024, 30, 2.7, 0.36, 0.11, 100)
OPTIONS = {"force_coefficient": 100, "force_scale": None, "gradient_forces": False}


def crystal(spread, count=40, fixed=4, forces=0.5):
    """Frames of one slab whose free atoms lie about their mean with a known deviation."""
    records = []
    for index in range(count):
        generator = torch.Generator().manual_seed(index)
        record = slab("Cu", "O", 7)
        record.fixed = torch.zeros(len(record.pos), dtype=torch.long)
        record.fixed[:fixed] = 1
        noise = spread * torch.randn(record.pos.shape, generator=generator)
        record.pos = record.pos + noise * (record.fixed == 0)[:, None]
        record.forces = forces * torch.randn(record.pos.shape, generator=generator)
        record.sid = index
        records.append(record)
    return records


def molecules(spread, count=60):
    """One molecule, turned and moved at random, whose atoms shake with a known deviation."""
    rng = np.random.default_rng(3)
    start = rng.normal(size=(30, 3)) * 3
    records = []
    for index in range(count):
        turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        turn *= np.sign(np.linalg.det(turn))
        shaken = start + spread * rng.normal(size=start.shape)
        records.append(
            Data(
                pos=torch.tensor(shaken @ turn + 10 * rng.normal(size=3), dtype=torch.float32),
                atomic_numbers=torch.full((30,), 6), fixed=torch.zeros(30, dtype=torch.long),
                forces=torch.ones(30, 3), sid=index, natoms=30,
            )
        )  # fmt: skip
    return records


def test_displacement_of_a_crystal():
    evidence = observe(crystal(0.07))
    assert evidence.displacement == pytest.approx(0.07, rel=0.05)
    assert evidence.force_rms == pytest.approx(0.5, rel=0.05)
    assert evidence.free_atoms == len(slab("Cu", "O", 7).pos) - 4
    assert evidence.records == evidence.read == 40


def test_displacement_across_the_boundary():
    """An atom that leaves the cell on one side and comes in on the other has not moved far."""
    records = crystal(0.05)
    for record in records[::2]:
        record.pos = record.pos + record.cell[0, 0]
    assert observe(records).displacement == pytest.approx(0.05, rel=0.05)


@pytest.mark.parametrize("box", [None, 80.0])
def test_displacement_of_a_molecule_is_without_rotation(box):
    records = molecules(0.04)
    for record in records:
        if box is not None:
            record.cell = box * torch.eye(3)[None]
    # of 90 coordinates 6 are turned and moved away
    assert observe(records).displacement == pytest.approx(0.04 * (84 / 90) ** 0.5, rel=0.05)


def test_superposition_does_not_mirror():
    one = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 3], [0, 0, 0]])
    turned = one @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + 5
    assert np.allclose(superposed(one, turned), turned)
    assert np.abs(superposed(one * [1, 1, -1], one) - one).max() > 0.3


def test_relaxations_are_told_apart_by_sid():
    records = crystal(0.07, 20)
    for index, record in enumerate(records):
        record.sid = index // 2
        record.pos = record.pos + 0.5 * (index // 2)  # other systems are elsewhere
    assert observe(records).displacement == pytest.approx(0.07, rel=0.15)


def test_the_same_data_give_the_same():
    records = molecules(0.04)
    assert observe(records) == observe(records)
    assert resolve(DeNSConfig(auto=True), records, **OPTIONS) == resolve(
        DeNSConfig(auto=True), records, **OPTIONS
    )


def test_sample_of_a_large_set():
    indices = sample(2_000_000)
    assert len(indices) == 1024 and indices[0] == 0 and indices[-1] == 1_999_999
    assert sum(b - a == 1 for a, b in zip(indices, indices[1:], strict=False)) == 128 * 7


# ---- rules -------------------------------------------------------------------------------------


def test_rounding():
    values = [0.0546, 0.103, 0.132, 0.099, 4.3, 17.0, 0.0078]
    assert [rounded(value) for value in values] == [0.05, 0.1, 0.15, 0.1, 4.0, 15.0, 0.008]


def test_near_the_paper():
    """Within a factor of two and a half of what the authors chose, sigma and p and r nearer."""
    oc20 = pick(OC20, force_coefficient=100, force_scale=2.887, gradient_forces=False).options
    assert oc20["sigma"] in (0.1, 0.15) and (oc20["p"], oc20["r"]) == (0.5, 0.5)
    assert 4 <= oc20["coefficient"] <= 25
    all_md = pick(replace(OC20, records=172_000_000), force_coefficient=100, force_scale=2.887,
                  gradient_forces=False).options  # fmt: skip
    assert (all_md["p"], all_md["r"]) == (0.125, 0.25)
    # energies' deviation 0.26 eV; 5 / (p r) = 80 with our denominator
    md17 = pick(ASPIRIN, force_coefficient=80, force_scale=0.26, gradient_forces=True).options
    assert (md17["sigma"], md17["p"], md17["r"]) == (0.05, 0.25, 0.25)
    assert md17["coefficient_decay"] == "linear" and 32 <= md17["coefficient"] <= 200


def test_sigma_follows_the_smaller_of_two_lengths():
    def sigma(**changes):
        return pick(replace(OC20, **changes), **OPTIONS).options["sigma"]

    assert sigma(displacement=0.03) == 0.03
    assert sigma(displacement=3.0) == sigma(displacement=None) == 0.15  # 5 % of 2.7
    assert sigma(displacement=3.0, nearest=1.0) == 0.05


def test_small_structures_have_two_corrupted_atoms():
    assert pick(replace(OC20, free_atoms=3), **OPTIONS).options["r"] == pytest.approx(0.667)
    assert pick(replace(OC20, free_atoms=1), **OPTIONS).options["r"] == 1


def test_the_weight_follows_the_forces():
    one = pick(OC20, **OPTIONS).options["coefficient"]
    assert one == 40.0  # 0.35 x 100, forces normalised to an rms of 1, rounded by ratio
    half = pick(OC20, **{**OPTIONS, "force_scale": 2 * OC20.force_rms}).options["coefficient"]
    assert half == 20.0


def test_what_is_given_stays():
    config = parse_dens_config(
        {"dens": {"auto": True, "p": 0.3, "coefficient": 7, "energy": False}}
    )
    found, picks = resolve(config, crystal(0.07), **OPTIONS)
    assert (found.p, found.coefficient, found.energy, found.auto) == (0.3, 7, False, False)
    assert found.sigma == 0.08 and "p" not in picks.options
    assert parse_dens_config({"dens": "auto"}) == DeNSConfig(auto=True)
    assert parse_dens_config({"dens": found.model_dump()}) == found


# ---- mistakes ----------------------------------------------------------------------------------


def without_forces(records):
    records[3].forces = None


def all_fixed(records):
    for record in records:
        record.fixed = torch.ones_like(record.fixed)


def no_force_anywhere(records):
    for record in records:
        record.forces = torch.zeros_like(record.forces)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_forces, "has no forces"),
        (all_fixed, "no free atoms"),
        (no_force_anywhere, "forces with rms 0"),
        (lambda records: records.clear(), "no records"),
    ],
)
def test_data_that_do_not_allow_it(change, words):
    records = crystal(0.07, 6)
    change(records)
    with pytest.raises(DensError, match=words) as refused:
        observe(records)
    assert str(refused.value).startswith("dens: auto: ")


def test_single_atoms():
    record = Data(
        pos=torch.zeros(1, 3), atomic_numbers=torch.tensor([1]), fixed=torch.zeros(1),
        forces=torch.ones(1, 3), sid=0,
    )  # fmt: skip
    with pytest.raises(DensError, match="no structure with two atoms"):
        observe([record, record])


def test_a_loss_without_forces():
    assert force_coefficient([{"energy": {}}, {"forces": {"coefficient": 80}}]) == 80
    with pytest.raises(DensError, match="loss_functions has no forces"):
        force_coefficient([{"energy": {"coefficient": 2}}])
    with pytest.raises(DensError, match="dens: auto"):
        parse_dens_config({"dens": "automatic"})
