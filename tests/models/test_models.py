"""What a DeNS model is and is not, in training and evaluation."""

import pytest
import torch

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.corruption import corrupt, step_generator
from dens_ocp.dens.force_encoding import ForceEncoding, force_coefficients
from dens_ocp.errors import DensError
from dens_ocp.models.dens_model import DeNSModel
from dens_ocp.models.parameter_names import translated
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model
from tests.plans import attach

ALL = pytest.mark.parametrize(
    "config",
    [SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, {**SMALL_ESEN, "forces": "gradient"}],
    ids=["eqv2", "escn", "esen", "esen with gradient forces"],
)


def corrupted(batch, **options):
    options = {"p": 1, "r": 0.5, **options}
    attach(
        batch,
        corrupt(
            pos=batch.pos,
            forces=batch.forces,
            fixed=batch.fixed,
            batch=batch.batch,
            natoms=batch.natoms,
            config=DeNSConfig(**options),
            generator=step_generator(0, 0, 1),
        ),
    )
    return batch


@ALL
def test_evaluation_has_no_noise_head_and_reads_no_forces(config, batch):
    model = build_model(config).eval()
    calls = []
    model.noise_head.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        torch.manual_seed(0)
        clean = model(batch)
        corruption_fields = corrupted(batch.clone())
        corruption_fields.pos = batch.pos
        corruption_fields.forces = torch.full_like(batch.forces, float("nan"))
        torch.manual_seed(0)
        same = model(corruption_fields)
        del batch.forces
        torch.manual_seed(0)
        without = model(batch)
    assert set(clean) == {"energy", "forces"} and not calls
    for name in clean:
        assert torch.equal(clean[name], same[name]) and torch.equal(clean[name], without[name])


@ALL
def test_training_without_corruption_equals_evaluation(config, batch):
    model = build_model(config)
    torch.manual_seed(0)
    training = model.train()(batch)
    torch.manual_seed(0)
    evaluation = model.eval()(batch)
    assert torch.allclose(training["forces"], evaluation["forces"], atol=1e-5)
    assert torch.allclose(training["energy"], evaluation["energy"], atol=1e-5)


@ALL
def test_every_parameter_gets_a_gradient_corrupted_or_not(config, batch):
    model = build_model({**config, "use_noise_schedule_sigma_encoding": True}).train()
    for data in (batch, corrupted(batch.clone())):
        model.zero_grad()
        outputs = model(data)
        sum(value.sum() for value in outputs.values()).backward()
        silent = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert silent == []


@ALL
def test_force_encoding_reads_corrupted_atoms_only(config, batch):
    model = build_model(config).train()
    if config is SMALL_ESCN:
        torch.nn.init.normal_(model.force_embedding.weight)
    data = corrupted(batch)

    def energy(forces):
        torch.manual_seed(0)
        copy = data.clone()
        copy.forces = forces
        return model(copy)["energy"]

    mask = data.noise_mask[:, None]
    nan = torch.full_like(data.forces, float("nan"))
    base = energy(data.forces)
    assert torch.equal(base, energy(torch.where(mask, data.forces, nan)))
    assert not torch.allclose(base, energy(torch.where(mask, 2 * data.forces, nan)), atol=1e-7)
    model.use_force_encoding = False
    assert torch.equal(energy(data.forces), energy(nan))


@ALL
def test_sigma_encoding_is_seen(config, batch):
    model = build_model({**config, "use_noise_schedule_sigma_encoding": True}).train()
    data = corrupted(batch)
    torch.manual_seed(0)
    small = model(data)["noise"]
    data.sigmas = data.sigmas * 10
    torch.manual_seed(0)
    assert not torch.allclose(small, model(data)["noise"], rtol=1e-3)


@pytest.mark.parametrize("config", [SMALL_EQUIFORMER, SMALL_ESCN], ids=["eqv2", "escn"])
def test_activation_checkpointing_changes_no_gradient(config, batch):
    data = corrupted(batch)
    gradients = []
    for checkpointing in (False, True):
        model = build_model({**config, "activation_checkpoint": checkpointing}).train()
        torch.manual_seed(0)
        outputs = model(data.clone())
        sum((value**2).sum() for value in outputs.values()).backward()
        gradients.append(
            {
                name.replace("_checkpoint_wrapped_module.", ""): parameter.grad.clone()
                for name, parameter in model.named_parameters()
                if parameter.grad is not None
            }
        )
    plain, recomputed = gradients
    assert set(plain) == set(recomputed)
    for name, gradient in plain.items():
        assert torch.allclose(gradient, recomputed[name], rtol=1e-4, atol=1e-5), name


def test_force_coefficients_are_component_normalised_forces():
    forces = torch.tensor([[0.3, -1.2, 0.5], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    coefficients = force_coefficients(forces, torch.tensor([True, True, True]), 3)[..., 0]
    assert torch.allclose(coefficients[:, 1:4], forces, atol=1e-6)
    norms = forces.norm(dim=-1)
    for degree in range(4):
        block = coefficients[:, degree**2 : (degree + 1) ** 2]
        expected = norms * ((2 * degree + 1) / 3) ** 0.5
        assert torch.allclose(block.norm(dim=-1), expected, atol=1e-5)


def test_encoding_without_forces_is_the_bias():
    encoding = ForceEncoding(4, 2)
    torch.nn.init.normal_(encoding.bias)
    full = encoding(torch.randn(5, 3), torch.zeros(5, dtype=torch.bool))
    assert torch.equal(encoding.without_forces(5), full)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("module.module.module.blocks.0.ga.proj.weight", "blocks.0.ga.proj.weight"),
        ("energy_block.so3_linear_1.weight", "energy_head.energy_block.so3_linear_1.weight"),
        ("module.backbone.norm.affine_weight", "norm.affine_weight"),
        ("output_heads.f.force_block.alpha_dot", "force_head.force_block.alpha_dot"),
        ("force_embedding.weight", "force_embedding.weight"),
        ("noise_head.force_block.proj.bias", "noise_head.force_block.proj.bias"),
    ],
)
def test_parameter_names(theirs, ours):
    assert translated(theirs) == ours
    assert translated(ours) == ours


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_layer": 3}, "model.num_layer, did you mean 'num_layers'"),
        ({"use_tp_reparam": True}, "use_tp_reparam"),
        ({"regress_forces": False}, "regress_forces"),
        ({"lmax_list": [4, 2], "mmax_list": [2, 2]}, "lmax_list"),
    ],
)
def test_options_that_cannot_work(options, words):
    with pytest.raises(DensError, match=words):
        build_model({**SMALL_EQUIFORMER, **options})


@pytest.mark.parametrize("config", [SMALL_EQUIFORMER, SMALL_ESCN], ids=["eqv2", "escn"])
def test_graph_and_frames_are_not_rounded_under_autocast(config, batch):
    model = build_model(config)
    found = []
    for owner in (model, super(DeNSModel, model)):  # ours, fairchem's
        with torch.autocast("cpu", torch.bfloat16):
            graph = owner.generate_graph(batch.clone())
            vectors = graph.edge_distance_vec
            rotations = owner._init_edge_rot_mat(batch, graph.edge_index, vectors)
        found.append((vectors, rotations))
    exact = model.generate_graph(batch.clone()).edge_distance_vec
    (ours, rotations), (theirs, _) = found
    assert torch.equal(ours, exact)
    assert rotations.dtype == torch.float32
    assert theirs.shape != exact.shape or (theirs - exact).abs().max() > 1e-3


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("config", [SMALL_EQUIFORMER, SMALL_ESCN], ids=lambda each: each["name"])
def test_energies_of_atoms_are_added_up_in_float32_under_autocast(config, fast, batch):
    model, atoms = build_model({**config, "fast": fast}).eval(), []
    model.energy_head.energy_block.register_forward_hook(
        lambda _module, _inputs, output: atoms.append(getattr(output, "embedding", output))
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        energy = model(batch)["energy"]
    (each,) = atoms
    each = each[:, 0] if each.dim() == 3 else each
    total = torch.zeros(len(energy), dtype=torch.float64)
    total.index_add_(0, batch.batch, each.double().view(-1))
    assert energy.dtype == torch.float32
    scale = energy.double() / total
    assert torch.allclose(scale, scale[:1].expand_as(scale), rtol=1e-5)
