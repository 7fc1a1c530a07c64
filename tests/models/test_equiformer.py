"""equiformer_dens: the authors' numbers, sizes of the paper, symmetries, forces as gradients."""

import copy

import numpy as np
import pytest
import torch
from ase import units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet
from e3nn import nn, o3
from torch_geometric.data import Batch, Data

from dens_ocp.dens.step_plan import Corruption, read
from dens_ocp.errors import DensError
from dens_ocp.models.checkpoint_states import fit
from dens_ocp.models.equiformer.irreps import Gate, cat, split
from dens_ocp.models.equiformer.model import radius_graph
from dens_ocp.models.equiformer.tensor_products import DepthwiseTensorProduct
from dens_ocp.models.parameter_names import is_constant, is_dens, translated
from tests.conftest import build_model
from tests.molecules import SMALL_EQUIFORMER_L2, batch_of
from tests.plans import attach, attach_scored

L2 = {"name": "equiformer_dens"}
L3 = {
    "name": "equiformer_dens",
    "irreps_node_embedding": "128x0e+64x1e+64x2e+32x3e",
    "irreps_sh": "1x0e+1x1e+1x2e+1x3e",
    "irreps_feature": "512x0e+256x1e+256x2e+128x3e",
    "irreps_head": "32x0e+16x1e+16x2e+8x3e",
    "irreps_mlp_mid": "384x0e+192x1e+192x2e+96x3e",
}
WITHOUT_DENS = {"irreps_feature": "512x0e", "use_noise_head": False}
VARIANTS = {
    "whole": {},
    "no attention": {"use_attention": False},
    "neither": {"use_attention": False, "norm_layer": None, "weight_init": "uniform"},
}


@pytest.fixture
def float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def small(seed: int = 0, **changes):
    return build_model({**SMALL_EQUIFORMER_L2, **changes}, seed)


def corrupted(batch: Batch, seed: int = 0, share: float = 0.5) -> Batch:
    """Some atoms of the first structure are moved."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.rand(len(batch.pos), generator=generator) < share) & (batch.batch == 0)
    noise = 0.05 * torch.randn(batch.pos.shape, generator=generator, dtype=batch.pos.dtype)
    noise = noise * mask[:, None]
    structures = torch.arange(batch.natoms.numel()) == 0
    attach(batch, Corruption(mask, noise, 0.05 * mask[:, None].to(noise), structures))
    return batch


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-9, atol=1e-9)


# ---- the authors' model ---------------------------------------------------------------------


@pytest.fixture
def reference(shared):
    return torch.load(shared / "reference" / "equiformer_dens_md17.pt", weights_only=False)


@pytest.mark.parametrize("case", ["s2ef", "dens"])
def test_numbers_of_the_authors_code(reference, float64, case):
    model = build_model({"name": "equiformer_dens", **reference["config"]})
    model.load_state_dict(reference["state_dict"], strict=True)
    batch = Batch(**reference["batch"])
    batch.natoms = torch.bincount(batch.batch)
    expected = reference["cases"][case]
    batch.pos = expected["pos"].clone()
    if case == "s2ef":
        outputs = model.eval()(batch)
        vectors = outputs["forces"]
    else:
        batch.denoising_pos_forward, batch.noise_mask = True, expected["noise_mask"]
        outputs = model.train()(batch)
        vectors = torch.where(batch.noise_mask[:, None], outputs["noise"], outputs["forces"])
    for ours, theirs in ((outputs["energy"], expected["energy"]), (vectors, expected["forces"])):
        assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-12


def test_forces_encoded_in_another_unit(reference, float64):
    """The authors' numbers, of forces in their unit, from forces in eV/A and the recipes' scale."""
    per_ev = 23.060548
    model = build_model(
        {"name": "equiformer_dens", **reference["config"], "force_encoding_scale": per_ev}
    )
    model.load_state_dict(reference["state_dict"], strict=True)
    batch = Batch(**reference["batch"])
    batch.natoms = torch.bincount(batch.batch)
    expected = reference["cases"]["dens"]
    batch.pos, batch.forces = expected["pos"].clone(), batch.forces / per_ev
    batch.denoising_pos_forward, batch.noise_mask = True, expected["noise_mask"]
    outputs = model.train()(batch)
    vectors = torch.where(batch.noise_mask[:, None], outputs["noise"], outputs["forces"])
    for ours, theirs in ((outputs["energy"], expected["energy"]), (vectors, expected["forces"])):
        assert ((ours - theirs).abs().max() / theirs.abs().max()).item() < 1e-12


def test_names_are_the_authors(reference):
    model = build_model({"name": "equiformer_dens", **reference["config"]})
    parameters = {name: value.shape for name, value in model.named_parameters()}
    theirs = {
        translated(name): value.shape
        for name, value in reference["state_dict"].items()
        if not is_constant(name) and value.numel() and not name.startswith("rbf.")
    }
    assert parameters == theirs
    # their order too: an optimizer's state is a list
    assert [name for name in theirs if ".ga." not in name and "head." not in name] == [
        name for name in parameters if ".ga." not in name and "head." not in name
    ]


def test_a_checkpoint_with_other_constants_fits(reference, float64):
    """e3nn's versions store other constants; a run's checkpoint has prefixes."""
    model = build_model({"name": "equiformer_dens", **reference["config"]})
    given = {
        f"module.module.{name}": value
        for name, value in reference["state_dict"].items()
        if not is_constant(name)
    }
    given["module.module.blocks.0.ga.sep_act.dtp.tp._w3j_of_old"] = torch.zeros(1)
    given["module.module.blocks.0.ga.proj.tp.output_mask"] = torch.zeros(1)
    state = fit(model, given, "checkpoint.pt")
    assert state.initialised == ()
    model.load_state_dict(state.state_dict, strict=True)
    for name, value in reference["state_dict"].items():
        if not is_constant(name):
            assert torch.equal(model.state_dict()[translated(name)], value), name


@pytest.mark.parametrize(
    ("config", "number"),
    [
        (L2, 4_000_577),
        (L3, 6_354_241),
        (L2 | WITHOUT_DENS, 3_496_001),
        (L3 | WITHOUT_DENS, 5_500_865),
    ],
)
def test_parameters_of_the_paper(config, number):
    """Table 4: 4.00M, 6.35M, 3.50M, 5.50M."""
    assert sum(parameter.numel() for parameter in build_model(config).parameters()) == number


def test_initial_scale_of_weights():
    normal, uniform = small(), small(weight_init="uniform")
    for model in (normal, uniform):
        weight = model.blocks[1].ffn.fctp_1.tp["weight"]  # 8x0e to 28x0e first
        spread = weight[: 8 * 28].std().item()
        expected = 8**-0.5 if model is normal else (3 * 8) ** -0.5
        assert spread == pytest.approx(expected, rel=0.15)
    assert normal.atom_embed.atom_type_lin.tp["weight"].std().item() == pytest.approx(1, rel=0.15)
    largest = uniform.blocks[1].ffn.fctp_1.tp["weight"][: 8 * 28].abs().max().item()
    assert largest <= 8**-0.5


def decayed(model) -> set[str]:
    return {n for n, _ in model.named_parameters()} - set(model.no_weight_decay())


@pytest.mark.parametrize(("config", "number"), [(L2, 3_980_128), (L3, 6_331_168)])
def test_as_many_numbers_are_decayed_as_in_the_authors_code(config, number):
    """Their ``add_weight_decay`` goes by name, with what their model's ``no_weight_decay`` adds."""
    model = build_model(config)
    sizes = {name: value.numel() for name, value in model.named_parameters()}
    assert sum(sizes[name] for name in decayed(model)) == number


def test_weight_decay_is_for_all_but_biases_and_normalisations():
    found = decayed(small())
    for name in (
        "atom_embed.atom_type_lin.tp.weight", "force_embedding.tp.weight",
        "blocks.0.ga.sep_value.dtp.tp.weight", "blocks.0.ga.alpha_dot", "edge_deg_embed.rad.offset",
        "blocks.0.ga.sep_act.dtp_rad.net.0.weight", "energy_head.2.tp.weight",
    ):  # fmt: skip
        assert name in found
    layer_norms, linear = ".net.1.weight", ".net.0.bias"
    assert not any(name.endswith((layer_norms, linear)) for name in found)
    assert not any("affine" in name or ".bias." in name for name in found)
    without = decayed(small(use_attention=False, norm_layer=None))
    assert without and not any(".bias." in name or name.endswith(layer_norms) for name in without)


# ---- symmetries -----------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rotation_translation_and_order_of_atoms(float64, variant, training):
    model = small(**VARIANTS[variant]).train(training)
    batch = batch_of("CH3CH2OH", "H2O")
    if training:
        batch = corrupted(batch)
    order = torch.cat([torch.randperm(9), 9 + torch.randperm(3)])
    rotation = o3.rand_matrix()
    moved = batch.clone()
    for name in ("pos", "forces", "noise_vec"):
        if name in batch:
            moved[name] = batch[name][order] @ rotation.T
    moved.pos = moved.pos + torch.tensor([1.0, -2.0, 3.0])
    for name in ("atomic_numbers", "noise_mask"):
        if name in batch:
            moved[name] = batch[name][order]
    one, other = model(batch), model(moved)
    assert set(one) == ({"energy", "forces", "noise"} if training else {"energy", "forces"})
    assert close(one["energy"], other["energy"])
    for name in set(one) - {"energy"}:
        assert close(one[name][order] @ rotation.T, other[name]), name
    assert one["forces"].abs().max() > 1e-3


def test_structures_of_a_batch_do_not_see_each_other(float64):
    model = small().eval()
    names = ("CH3CH2OH", "H2O", "CH4")
    together = model(batch_of(*names))
    records = batch_of(*names).to_data_list()
    alone = [model(Batch.from_data_list([record])) for record in records]
    assert close(together["energy"], torch.cat([each["energy"] for each in alone]))
    assert close(together["forces"], torch.cat([each["forces"] for each in alone]))


def test_single_atoms_and_none_within_the_cutoff(float64):
    """No edge at all: an energy, no force, no noise; gradients are finite."""
    model = small().train()
    batch = Batch.from_data_list(
        [
            Data(pos=torch.zeros(1, 3), atomic_numbers=torch.tensor([8]), natoms=1),
            Data(pos=torch.tensor([[0.0, 0, 0], [0, 0, 9]]), natoms=2,
                 atomic_numbers=torch.tensor([8, 8])),
        ]
    )  # fmt: skip
    outputs = model(batch)
    assert torch.equal(outputs["forces"], torch.zeros(3, 3))
    assert close(2 * outputs["energy"][0], outputs["energy"][1])
    sum(value.square().sum() for value in outputs.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


# ---- the graph ------------------------------------------------------------------------------


def test_graph_has_all_pairs_of_a_structure_within_the_cutoff():
    batch = batch_of("CH3CH2OH", "H2O", "C6H6")
    edges = radius_graph(batch.pos, batch.natoms, 2.5)
    distances = torch.cdist(batch.pos, batch.pos)
    wanted = (distances <= 2.5) & (batch.batch[:, None] == batch.batch)
    wanted.fill_diagonal_(False)
    assert {tuple(pair) for pair in edges.T.tolist()} == {
        tuple(pair) for pair in wanted.nonzero().tolist()
    }
    assert len(edges.T) == wanted.sum()


def test_periodic_graph_in_a_large_box_is_that_without_a_box():
    batch = batch_of("CH3CH2OH", "H2O", dtype=torch.float32)
    batch.cell = 40 * torch.eye(3).repeat(2, 1, 1)
    free, periodic = (small(use_pbc=value).eval()(batch) for value in (False, True))
    for name in ("energy", "forces"):
        assert torch.allclose(free[name], periodic[name], atol=1e-5)
    batch.cell = 4 * torch.eye(3).repeat(2, 1, 1)
    crowded = small(use_pbc=True).eval()(batch)
    assert not torch.allclose(crowded["energy"], free["energy"], atol=1e-3)


# ---- forces are gradients -------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_forces_are_finite_differences_of_the_energy(float64, variant):
    """In training with corrupted positions and encoded forces, too."""
    for training in (False, True):
        model = small(**VARIANTS[variant]).train(training)
        batch = corrupted(batch_of("H2O", "CH4")) if training else batch_of("H2O", "CH4")
        forces = model(batch)["forces"]
        direction = torch.randn(forces.shape)
        step, energies = 1e-6, []
        for sign in (1, -1):
            moved = batch.clone()
            moved.pos = batch.pos + sign * step * direction
            energies.append(model(moved)["energy"].sum())
        difference = (energies[0] - energies[1]) / (2 * step)
        assert -(forces * direction).sum().item() == pytest.approx(difference.item(), rel=1e-6)


def force_loss(model, batch) -> torch.Tensor:
    outputs = model(batch)
    noisy = read(batch).noise_mask[:, None]
    vectors = torch.where(noisy, outputs["noise"], outputs["forces"])
    return vectors.square().sum() + outputs["energy"].sum()


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_of_a_loss_of_forces(float64, variant):
    """Double backward, against finite differences along a direction in all parameters."""
    model = small(**VARIANTS[variant]).train()
    batch = corrupted(batch_of("H2O", "CH4"))
    force_loss(model, batch).backward()
    directions = [torch.randn_like(parameter) for parameter in model.parameters()]
    slope = sum(
        (p.grad * d).sum() for p, d in zip(model.parameters(), directions, strict=True)
    ).item()
    step, losses = 1e-5, []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter += sign * step * direction
        losses.append(force_loss(model, batch).item())
    assert slope == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient_corrupted_or_not(variant, share):
    """DDP asks for it: on each rank, at each step."""
    model = small(**VARIANTS[variant]).train()
    force_loss(
        model, corrupted(batch_of("H2O", "CH4", dtype=torch.float32), share=share)
    ).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_evaluation_under_no_grad_leaves_no_graph(float64):
    model, batch = small().eval(), batch_of("H2O")
    with torch.no_grad():
        outputs = model(batch)
    assert not any(value.requires_grad for value in outputs.values())
    assert not batch.pos.requires_grad
    assert torch.equal(outputs["forces"], model(batch)["forces"])


class _Model(Calculator):
    implemented_properties = ("energy", "forces")

    def __init__(self, model):
        super().__init__()
        self.model = model

    def calculate(self, atoms=None, properties=(), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        record = Data(
            pos=torch.tensor(atoms.positions), atomic_numbers=torch.tensor(atoms.numbers),
            natoms=len(atoms),
        )  # fmt: skip
        outputs = self.model(Batch.from_data_list([record]))
        self.results = {"energy": outputs["energy"].item(), "forces": outputs["forces"].numpy()}


def drift(model, step: float, time: float = 20.0) -> float:
    """Largest change of the total energy in an NVE run, eV; ``step`` and ``time`` in fs."""
    atoms = molecule("CH3OH")
    atoms.calc = _Model(model)
    MaxwellBoltzmannDistribution(atoms, temperature_K=300, rng=np.random.default_rng(0))
    run = VelocityVerlet(atoms, step * units.fs)
    start, largest = atoms.get_total_energy(), 0.0
    for _ in range(round(time / step)):
        run.run(1)
        largest = max(largest, abs(atoms.get_total_energy() - start))
    return largest


def test_energy_is_conserved(float64):
    """The error of velocity Verlet goes with the square of its time step, for forces that are a
    gradient. The cutoff is far: at 5 Angstrom the model's energy jumps when a pair crosses it."""
    model = small(max_radius=12.0).eval()
    coarse, fine = drift(model, 0.5), drift(model, 0.25)
    assert coarse < 1e-2
    assert coarse / fine == pytest.approx(4, rel=0.1)

    class NotAGradient(torch.nn.Module):
        def forward(self, data):
            outputs = model(data)
            outputs["forces"] = 1.05 * outputs["forces"]
            return outputs

    assert drift(NotAGradient(), 0.25) > 3 * fine


# ---- DeNS -----------------------------------------------------------------------------------


def test_nothing_corrupted_is_prediction(float64):
    model = small()
    batch = corrupted(batch_of("H2O", "CH4"), share=0.0)
    trained, evaluated = model.train()(batch), model.eval()(batch)
    for name in ("energy", "forces"):
        assert close(trained[name], evaluated[name])


def test_evaluation_looks_at_no_field_of_dens(float64):
    model = small().eval()
    clean = batch_of("H2O", "CH4")
    expected = model(clean)
    batch = clean.clone()
    batch.forces = torch.full_like(batch.forces, float("nan"))
    batch.noise_mask = torch.ones(len(batch.pos), dtype=torch.bool)
    batch.denoising_pos_forward = True
    attach_scored(batch, torch.zeros(len(batch.pos), dtype=torch.bool))
    outputs = model(batch)
    assert set(outputs) == {"energy", "forces"}
    for name, value in outputs.items():
        assert torch.equal(value, expected[name])


def test_only_forces_of_corrupted_atoms_are_encoded(float64):
    model = small().train()
    batch = corrupted(batch_of("H2O", "CH4"))
    mask = batch.noise_mask
    assert mask.any() and not mask.all()

    def energy(atoms, value):
        changed = copy.copy(batch)
        changed.forces = torch.where(atoms[:, None], value, batch.forces)
        return model(changed)["energy"]

    same = model(batch)["energy"]
    assert torch.equal(energy(~mask, torch.tensor(float("nan"))), same)
    assert not torch.allclose(energy(mask, 2 * batch.forces), same)
    ablation = small(use_force_encoding=False).train()
    outputs, twice = ablation(batch), copy.copy(batch)
    twice.forces = 2 * batch.forces
    assert torch.equal(ablation(twice)["noise"], outputs["noise"])


def test_without_a_noise_head(float64):
    model = small(use_noise_head=False)
    assert not model.can_denoise
    assert not any(is_dens(name) for name in model.state_dict())
    outputs = model.train()(batch_of("H2O", "CH4"))
    assert set(outputs) == {"energy", "forces"} and outputs["forces"].requires_grad


def test_switches_of_attention_and_layer_normalisation():
    names = {
        variant: {name for name, _ in small(**VARIANTS[variant]).named_parameters()}
        for variant in VARIANTS
    }
    attention = names["whole"] - names["no attention"]
    assert attention and all("alpha" in name for name in attention)
    norms = names["no attention"] - names["neither"]
    assert norms and all("norm" in name for name in norms)
    assert not names["neither"] - names["whole"]


def test_dropout_is_for_training_only(float64):
    options = {"alpha_drop": 0.3, "proj_drop": 0.3, "out_drop": 0.3, "drop_path_rate": 0.3}
    with_drop, without = small(**options), small()
    batch = batch_of("H2O", "CH4")
    assert close(with_drop.eval()(batch)["energy"], without.eval()(batch)["energy"])
    with_drop.train()
    first, second = with_drop(batch), with_drop(batch)
    assert not close(first["energy"], second["energy"])
    assert first["forces"].isfinite().all()


# ---- mistakes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_layer": 3}, ["model.num_layer", "'num_layers'"]),
        ({"basis_type": "gaussian"}, ["model.basis_type", "'gaussian'", "'exp'"]),
        ({"irreps_in": "5x0e"}, ["model.irreps_in", "'64x0e'"]),
        ({"norm_layer": "graph"}, ["model.norm_layer", "layer, null"]),
        ({"weight_init": "ones"}, ["model.weight_init", "normal, uniform"]),
        ({"irreps_head": "32x0e+16x1o"}, ["model.irreps_head", "even"]),
        ({"irreps_head": "32 scalars"}, ["model.irreps_head", "32 scalars"]),
        ({"irreps_feature": "8x1e"}, ["model.irreps_feature", "8x1e"]),
        ({"num_heads": 0}, ["model.num_heads", "0"]),
        ({"max_radius": -1.0}, ["model.max_radius", "Angstrom"]),
        ({"otf_graph": False}, ["model.otf_graph", "False"]),
        ({"regress_forces": False}, ["model.regress_forces", "False"]),
    ],
)
def test_mistakes_in_options(options, words):
    with pytest.raises(DensError) as error:
        small(**options)
    for word in words:
        assert word in str(error.value)


# ---- parts ----------------------------------------------------------------------------------


def test_depthwise_product_is_e3nns(float64):
    irreps, edge = o3.Irreps("4x0e+3x1e+2x2e"), o3.Irreps("1x0e+1x1e+1x2e")
    ours = DepthwiseTensorProduct(irreps, edge, irreps)
    paths = [
        (i, j, ir_out, mul)
        for i, (mul, ir) in enumerate(irreps)
        for j, (_, ir_edge) in enumerate(edge)
        for ir_out in ir * ir_edge
        if ir_out in irreps
    ]
    outputs = o3.Irreps([(mul, ir) for _, _, ir, mul in paths]).sort()
    theirs = o3.TensorProduct(
        irreps, edge, outputs.irreps,
        [(i, j, outputs.p[k], "uvu", True) for k, (i, j, _, _) in enumerate(paths)],
        internal_weights=False, shared_weights=False, path_normalization="none",
    )  # fmt: skip
    assert (ours.irreps_out, ours.weight_numel) == (outputs.irreps, theirs.weight_numel)
    x, y, weights = irreps.randn(5, -1), edge.randn(5, -1), torch.randn(5, theirs.weight_numel)
    assert close(ours(x, y, weights), theirs(x, y, weights))


def test_gate_is_e3nns(float64):
    silu = torch.nn.functional.silu
    ours = Gate(o3.Irreps("3x0e+2x1e+1x2e"))
    theirs = nn.Gate("3x0e", [silu], "3x0e", [torch.sigmoid], "2x1e+1x2e")
    x = ours.irreps_in.randn(5, -1)
    assert ours.irreps_in.simplify() == theirs.irreps_in.simplify()
    assert close(ours(x), theirs(x))
    scalars = torch.randn(5, 3)
    assert close(Gate(o3.Irreps("3x0e"))(scalars), nn.Activation("3x0e", [silu])(scalars))


def test_split_and_cat_have_gradients_of_each_order(float64):
    x = torch.randn(3, 6, requires_grad=True)

    def function(x):
        first, second, third = split(x, [1, 3, 2])
        return cat([second**3, (first * third) ** 2])  # the gradient of one part is that of many

    assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)
    first, _, _ = split(x, [1, 3, 2])
    (gradient,) = torch.autograd.grad(first.sum(), x)
    assert gradient.sum() == 3
