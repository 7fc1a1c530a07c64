"""esen_dens beside fairchem's eSEN, without and with its DeNS; forces that are gradients."""

import copy

import pytest
import torch
from fairchem.core.models.esen import esen, esen_dens
from torch_geometric.data import Batch

from dens_ocp.dens.step_plan import read
from dens_ocp.errors import DensError
from dens_ocp.models import checkpoint_states
from dens_ocp.models.outputs import whole_tensor
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model, slab
from tests.models.fast.test_models import keep_graph_in_double
from tests.models.test_models import corrupted

GRADIENT = {**SMALL_ESEN, "forces": "gradient"}
STRESS = {"module": "esen_rank2_head", "output_name": "stress", "decompose": True}
BACKBONE = {
    "plain": {},
    "grid": {"act_type": "s2", "mlp_type": "grid", "use_envelope": False},
    "bessel": {"distance_function": "bessel", "norm_type": "layer_norm_sh", "lmax": 3},
    "checkpoints": {"activation_checkpointing": True},
}


def stock(options, backbone=esen.eSEN_Backbone, **more):
    options = {name: value for name, value in options.items() if name not in ("name", "forces")}
    torch.manual_seed(0)
    return backbone(**{"otf_graph": True, **options, **more})


def run(model, data, seed=0):
    torch.manual_seed(seed)  # the edges' random angles
    return model(data)


def loaded(model, state):
    """The weights of fairchem's modules by their names in a hydra model."""
    fitted = checkpoint_states.fit(model, state, "fairchem's")
    model.load_state_dict(fitted.state_dict)
    return fitted


def hydra_state(backbone, **heads):
    state = {f"module.backbone.{name}": value for name, value in backbone.state_dict().items()}
    for head, module in heads.items():
        state |= {
            f"module.output_heads.{head}.{name}": value
            for name, value in module.state_dict().items()
        }
    return state


@pytest.mark.parametrize("options", BACKBONE.values(), ids=BACKBONE.keys())
def test_without_dens_it_is_fairchems_to_the_bit(options, batch):
    backbone = stock({**SMALL_ESEN, **options})
    energy, forces = esen.MLP_Energy_Head(backbone), esen.Linear_Force_Head(backbone)
    model = build_model({**SMALL_ESEN, **options, "use_noise_head": False, "fast": False}, seed=5)
    fitted = loaded(model, hydra_state(backbone, energy=energy, forces=forces))
    assert not fitted.initialised and not fitted.dropped
    emb = run(backbone.eval(), copy.copy(batch))
    ours = run(model.eval(), batch)
    assert torch.equal(ours["energy"], energy(batch, emb)["energy"])
    assert torch.equal(ours["forces"], forces(batch, emb)["forces"])


@pytest.mark.parametrize("options", BACKBONE.values(), ids=BACKBONE.keys())
@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
def test_with_dens_it_is_fairchems_own(options, fast, batch):
    """``esen_backbone_dens``: energies, forces of uncorrupted atoms, noise, gradients."""
    backbone = stock({**SMALL_ESEN, **options}, esen_dens.eSEN_DeNS_Backbone)
    energy = esen.MLP_Energy_Head(backbone)
    forces = esen_dens.Linear_Force_Head_DeNS(backbone)
    model = build_model({**SMALL_ESEN, **options, "fast": fast}, seed=5)
    fitted = loaded(model, hydra_state(backbone, energy=energy, forces=forces))
    assert not fitted.initialised and not fitted.dropped
    data = corrupted(batch)
    emb = run(backbone, copy.copy(data))
    theirs = {**energy(data, emb), **forces(data, emb)}
    ours = run(model.train(), data)
    mask = data.noise_mask[:, None]
    assert 0 < mask.sum() < len(mask)
    assert torch.allclose(ours["energy"], theirs["energy"], rtol=1e-5, atol=1e-5)
    in_rows_of_forces = torch.where(mask, ours["noise"], ours["forces"])
    assert torch.allclose(in_rows_of_forces, theirs["forces"], rtol=1e-5, atol=1e-5)
    (theirs["energy"].sum() + theirs["forces"].square().sum()).backward()
    (ours["energy"].sum() + in_rows_of_forces.square().sum()).backward()
    expected = {name: each.grad for name, each in backbone.named_parameters()}
    found = {name: each.grad for name, each in model.named_parameters()}
    assert expected and all(
        torch.allclose(found[name], each, rtol=1e-3, atol=1e-5) for name, each in expected.items()
    )


@pytest.mark.parametrize("decompose", [True, False])
def test_direct_stress_is_fairchems_head(decompose, batch):
    options = {**STRESS, "decompose": decompose}
    model = build_model({**SMALL_ESEN, "heads": {"stress": options}}).train()
    head, seen = model.heads["stress"], {}
    head.register_forward_hook(lambda _, inputs, __: seen.update(zip("ie", inputs, strict=True)))
    outputs = run(model, batch)
    theirs = esen_rank2(model, options)
    theirs.load_state_dict(head.state_dict())
    expected = theirs(seen["i"], seen["e"])
    if decompose:
        for part in ("isotropic", "anisotropic"):
            name = f"stress_{part}"
            assert torch.allclose(outputs[name], expected[name], rtol=1e-4, atol=1e-6), name
    else:
        whole = expected["stress"].view(batch.num_graphs, -1)
        assert torch.allclose(outputs["stress"], whole, rtol=1e-4, atol=1e-6)


def esen_rank2(model, options):
    from fairchem.core.models.esen.nn.rank2 import Rank2SymmetricTensorHead

    options = {name: value for name, value in options.items() if name != "module"}
    return Rank2SymmetricTensorHead(model, **options)


# ---- forces that are gradients ---------------------------------------------------------------


def in_double(config, batch):
    """Model and batch in double precision; fairchem finds neighbours in float32 only."""
    model = build_model(config).eval().double()
    data = batch.clone()
    for name in ("pos", "cell", "forces"):
        data[name] = data[name].double()
    keep_graph_in_double(model)
    return model, data


def strained(data, strain):
    """Structures with cell and positions deformed by strain (3, 3)."""
    moved = data.clone()
    deformation = torch.eye(3, dtype=strain.dtype) + strain
    moved.pos = data.pos @ deformation
    moved.cell = data.cell @ deformation
    return moved


def test_forces_are_minus_the_slope_of_the_energy(batch):
    model, data = in_double(GRADIENT, batch)
    forces = run(model, data)["forces"]
    step = 1e-4
    for atom, axis in ((0, 0), (5, 1), (9, 2), (12, 0), (20, 2)):
        energies = []
        for sign in (1, -1):
            moved = data.clone()
            moved.pos = data.pos.clone()
            moved.pos[atom, axis] += sign * step
            energies.append(run(model, moved)["energy"].sum())
        slope = (energies[0] - energies[1]) / (2 * step)
        assert torch.isclose(-slope, forces[atom, axis], rtol=1e-4, atol=1e-8), (atom, axis)
    sums = torch.zeros(3, 3, dtype=forces.dtype).index_add_(0, data.batch, forces)
    assert sums.abs().max() < 1e-8 < forces.abs().max()


def test_stress_is_the_slope_over_the_volume(batch):
    model, data = in_double({**GRADIENT, "regress_stress": True}, batch)
    cells, positions = data.cell.clone(), data.pos.clone()
    outputs = run(model, data)
    assert torch.equal(data.cell, cells) and torch.equal(data.pos, positions)
    stress = outputs["stress"].view(-1, 3, 3)
    parts = {0: outputs["stress_isotropic"], 2: outputs["stress_anisotropic"]}
    assert torch.allclose(whole_tensor(parts), outputs["stress"])
    volumes, step = torch.linalg.det(data.cell), 1e-5
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (1, 2), (0, 2)):
        strain = torch.zeros(3, 3, dtype=torch.float64)
        strain[i, j] += step / 2
        strain[j, i] += step / 2
        energies = [run(model, strained(data, sign * strain))["energy"] for sign in (1, -1)]
        slopes = (energies[0] - energies[1]) / (2 * step) / volumes
        assert torch.allclose(slopes, stress[:, i, j], rtol=1e-3, atol=1e-9), (i, j)
        assert torch.allclose(stress[:, i, j], stress[:, j, i])


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
@pytest.mark.parametrize("regress_stress", [True, False])
def test_gradients_are_those_of_fairchems_head(fast, regress_stress, batch):
    """Forces, stress and, in training, the gradients of the parameters through them."""
    options = {**SMALL_ESEN, "regress_stress": regress_stress}
    backbone = stock(options, direct_forces=False)
    head = esen.MLP_EFS_Head(backbone)
    config = {**options, "forces": "gradient", "fast": fast, "use_noise_head": False}
    model = build_model(config, seed=5).train()
    loaded(model, hydra_state(backbone, energy=head))
    data = copy.copy(batch)
    data.pos = batch.pos.clone()
    expected = head(data, run(backbone.train(), data))
    ours = run(model, batch)
    assert set(expected) <= set(ours)
    for name, value in expected.items():
        assert torch.allclose(ours[name], value, rtol=1e-4, atol=1e-6), name
    sum(each.square().sum() for each in expected.values()).backward()
    sum(ours[name].square().sum() for name in expected).backward()
    found = {name: each.grad for name, each in model.named_parameters()}
    for name, each in backbone.named_parameters():
        if each.grad is not None:  # the last normalisation's l > 0, for example
            assert torch.allclose(found[name], each.grad, rtol=1e-3, atol=1e-5), name


def test_dens_with_gradient_forces(batch):
    """The rule of MD17: one energy, of the original structure; minus its gradient at the corrupted
    positions is the force of the atoms that are not corrupted; noise of the others."""
    model = build_model(GRADIENT).train()
    data = corrupted(batch)
    pos = data.pos.clone().requires_grad_(True)
    data.pos = pos
    outputs = run(model, data)
    assert set(outputs) == {"energy", "forces", "noise"} and read(data).noise_mask.any()
    outputs["forces"].square().sum().backward()  # a second derivative
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert all(name.startswith(("noise_head", "energy_head")) for name in silent), silent
    assert model.force_embedding.weight.grad.abs().max() > 0
    assert pos.grad is None  # the caller's tensor is not written to


def test_no_grad_and_inference_mode(batch):
    model = build_model(GRADIENT).eval()
    expected = run(model, batch)["forces"]
    assert not expected.requires_grad
    with torch.no_grad():
        assert torch.equal(run(model, batch)["forces"], expected)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_gradients_are_in_float32_under_autocast(half, batch):
    model = build_model({**GRADIENT, "regress_stress": True}).train()
    data = corrupted(batch)
    expected = run(model, data.clone())
    with torch.autocast("cpu", half):
        outputs = run(model, data.clone())
    for name, value in expected.items():
        assert outputs[name].dtype == torch.float32
        if name != "noise":
            assert torch.equal(outputs[name], value), name


def test_energies_are_smooth_where_a_neighbour_leaves():
    """With the envelope; the published recipe has it."""
    pair = slab("Cu", "O", 0, (1, 1, 1))
    jumps = {}
    for envelope in (True, False):
        model = build_model({**GRADIENT, "use_envelope": envelope, "cutoff": 3.0}).eval()
        energies = []
        for shift in (-1e-4, 1e-4):
            data = Batch.from_data_list([pair.clone()])
            data.pos = torch.tensor([[0.0, 0.0, 0.0], [3.0 + shift, 0.0, 0.0]])
            data.cell = 20 * torch.eye(3)[None]
            data.atomic_numbers = torch.tensor([8, 8])
            data.natoms, data.batch = torch.tensor([2]), torch.zeros(2, dtype=torch.long)
            energies.append(run(model, data)["energy"].item())
        jumps[envelope] = abs(energies[1] - energies[0])
    assert jumps[True] < 1e-6 < 1e-4 < jumps[False], jumps


# ---- from direct forces to gradients ---------------------------------------------------------


def direct_checkpoint(batch):
    """A DeNS model with direct forces and stress, a force encoding with a bias, and averaged
    weights."""
    options = {"use_noise_schedule_sigma_encoding": True, "heads": {"stress": STRESS}}
    model = build_model({**SMALL_ESEN, **options}, seed=3)
    torch.nn.init.normal_(model.force_embedding.bias)
    shadow = [1.5 * each.detach() for each in model.parameters()]
    return model, {"state_dict": model.state_dict(), "ema": {"shadow_params": shadow}}


@pytest.mark.parametrize("new_energy_head", [True, False])
def test_start_of_a_conservative_run(new_energy_head, batch, caplog):
    direct, checkpoint = direct_checkpoint(batch)
    options = {"use_noise_head": False, "new_energy_head": new_energy_head}
    model = build_model({**GRADIENT, **options}, seed=7)
    before = copy.deepcopy(model.state_dict())
    fitted = checkpoint_states.fitted(model, checkpoint, "direct.pt", False, ["ema"])
    assert "ema" not in fitted
    model.load_state_dict(fitted["state_dict"])
    with torch.no_grad():
        for parameter, average in zip(
            direct.parameters(), checkpoint["ema"]["shadow_params"], strict=True
        ):
            parameter.copy_(average)
    (line,) = caplog.messages
    dropped = "force_embedding, force_head, heads, noise_head, noise_schedule_sigma_embedding"
    if new_energy_head:
        assert f"has energy_head, {dropped}" in line and "initialised: energy_head" in line
        for name, value in model.state_dict().items():
            if name.startswith("energy_head."):
                assert torch.equal(value, before[name])
    else:
        assert f"has {dropped}, which this model does not use" in line
        expected = run(direct.eval(), batch)["energy"]
        energy = run(model.eval(), batch)["energy"]
        assert torch.allclose(energy, expected, rtol=1e-4, atol=1e-5)
        with torch.no_grad():  # a fold that is left out would be seen
            model.sphere_embedding.weight -= direct.force_embedding.bias
        assert not torch.allclose(run(model, batch)["energy"], expected, rtol=1e-2)


def test_dens_stays_in_a_conservative_run_with_a_noise_head(batch):
    _, checkpoint = direct_checkpoint(batch)
    model = build_model({**GRADIENT, "use_noise_schedule_sigma_encoding": True}, seed=7)
    fitted = checkpoint_states.fit(model, checkpoint["state_dict"], "direct.pt")
    assert {name.split(".")[0] for name in fitted.dropped} == {"force_head", "heads"}
    assert not fitted.initialised


def test_a_new_energy_head_cannot_be_evaluated(batch):
    _, checkpoint = direct_checkpoint(batch)
    model = build_model({**GRADIENT, "use_noise_head": False, "new_energy_head": True})
    with pytest.raises(DensError, match=r"direct\.pt.*energy_head is not trained"):
        checkpoint_states.fitted(model, checkpoint, "direct.pt", True, [])
    # its own checkpoint can
    own = {"state_dict": model.state_dict()}
    assert checkpoint_states.fitted(model, own, "own.pt", True, []) == own


@pytest.mark.parametrize("config", [SMALL_EQUIFORMER, SMALL_ESCN], ids=["eqv2", "escn"])
def test_other_models_without_a_noise_head(config, batch):
    """The stock model; it starts from a DeNS checkpoint without a change of its numbers."""
    dens = build_model(config, seed=3)
    torch.nn.init.normal_(dens.force_embedding.bias)
    model = build_model({**config, "use_noise_head": False}, seed=7)
    assert set(model.train()(batch.clone())) == {"energy", "forces"}
    fitted = checkpoint_states.fit(model, dens.state_dict(), "dens.pt")
    model.load_state_dict(fitted.state_dict)
    expected, found = run(dens.eval(), batch), run(model.eval(), batch)
    for name in expected:
        assert torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-5), name


# ---- mistakes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"forces": "gradients"}, "model.forces: 'gradients' is not known, did you mean"),
        ({"forces": "direct", "direct_forces": False}, "contradict each other"),
        ({"otf_graph": False}, "model.otf_graph: False"),
        ({"regress_stress": True}, "a separate head"),
        (
            {"forces": "gradient", "regress_stress": True, "use_pbc": False},
            "has no stress",
        ),
        ({"regress_forces": False}, "model.regress_forces: False"),
        ({"num_layer": 2}, "unknown option model.num_layer, did you mean 'num_layers'"),
    ],
)
def test_mistakes(options, words):
    with pytest.raises(DensError) as raised:
        build_model({**SMALL_ESEN, **options})
    assert words in str(raised.value)


@pytest.mark.parametrize("config", [SMALL_EQUIFORMER, SMALL_ESCN], ids=["eqv2", "escn"])
def test_models_whose_gradient_is_no_force(config):
    assert build_model({**config, "forces": "direct"}).gradient_forces is False
    with pytest.raises(DensError, match="random angles.*use esen_dens or equiformer_dens"):
        build_model({**config, "forces": "gradient"})


def test_fairchems_spelling():
    assert build_model({**SMALL_ESEN, "direct_forces": False}).gradient_forces
    assert not build_model({**SMALL_ESEN, "direct_forces": True}).gradient_forces
