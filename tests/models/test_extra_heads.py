"""Stress and other outputs beside energy and forces."""

import copy

import pytest
import torch
from e3nn import o3
from fairchem.core.models.equiformer_v2.heads.rank2 import Rank2SymmetricTensorHead
from torch_geometric.data import Batch

from dens_ocp.errors import DensError
from dens_ocp.models import checkpoint_states
from dens_ocp.models.outputs import whole_tensor
from dens_ocp.models.parameter_names import DENS_MODULES, is_buffer
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model, slab
from tests.models.test_models import corrupted

STRESS = {
    "module": "rank2_symmetric_head", "output_name": "stress", "decompose": True,
    "use_source_target_embedding": True,
}  # fmt: skip
FORMS = {
    "equiformer_v2": {**SMALL_EQUIFORMER, "fast": True},
    "equiformer_v2, fairchem's path": {**SMALL_EQUIFORMER, "fast": False},
    "escn": {**SMALL_ESCN, "fast": True},
    "escn, fairchem's path": {**SMALL_ESCN, "fast": False},
}
forms = pytest.mark.parametrize("config", FORMS.values(), ids=FORMS.keys())


def with_stress(config, **options):
    return build_model({**config, "heads": {"stress": {**STRESS, **options}}})


def stress_of(outputs):
    return whole_tensor({0: outputs["stress_isotropic"], 2: outputs["stress_anisotropic"]})


@forms
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_source_target_embedding": False, "num_mlp_layers": 3},
        {"edge_level_mlp": True, "extensive": True, "avg_num_nodes": 7.0},
        {"decompose": False},
        {"decompose": False, "edge_level_mlp": True, "extensive": True},
    ],
    ids=str,
)
def test_the_head_is_fairchems(config, options, batch):
    """Values and gradients."""
    model = with_stress(config, **options).train()
    head = model.heads["stress"]
    names = {key: value for key, value in {**STRESS, **options}.items() if key != "module"}
    stock = Rank2SymmetricTensorHead(model, **names)
    stock.load_state_dict(head.state_dict())
    seen = {}
    head.register_forward_hook(lambda _, inputs, __: seen.update(zip("ie", inputs, strict=True)))
    outputs = model(batch)
    expected = stock(seen["i"], seen["e"])
    embedding = seen["e"]["node_embedding"].embedding
    for name, theirs in expected.items():
        ours = outputs[name]
        assert ours.shape[0] == 3
        assert torch.allclose(ours.flatten(), theirs.flatten(), rtol=1e-5, atol=1e-6)
        weights = torch.randn(ours.numel(), generator=torch.Generator().manual_seed(0))
        wanted = [embedding, *stock.parameters()]
        there = torch.autograd.grad(
            (theirs.flatten() * weights).sum(), wanted, retain_graph=True, allow_unused=True
        )
        here = torch.autograd.grad(
            (ours.flatten() * weights).sum(), [embedding, *head.parameters()],
            retain_graph=True, allow_unused=True,
        )  # fmt: skip
        assert any(each is not None and each.abs().sum() > 0 for each in there)
        for one, other in zip(here, there, strict=True):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def turned(model, data):
    """Stress of a batch, turned, and of the turned batch."""
    rotation = o3.angles_to_matrix(*torch.tensor([0.3, 1.1, -0.7]))
    other = data.clone()
    for name in ("pos", "forces"):
        other[name] = data[name] @ rotation.T
    other.cell = data.cell @ rotation.T
    found = []
    for each in (data, other):
        torch.manual_seed(1)
        with torch.no_grad():
            outputs = model(each.clone())
        found.append(
            (outputs["stress"] if "stress" in outputs else stress_of(outputs)).view(-1, 3, 3)
        )
        assert torch.allclose(found[-1], found[-1].transpose(1, 2), atol=1e-6)
    return rotation @ found[0] @ rotation.T, found[1]


def random_head(config, **options):
    model = with_stress(config, **options).train()
    for parameter in model.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.normal_(model.force_embedding.weight)
    return model


@forms
@pytest.mark.parametrize(
    "options", [{}, {"edge_level_mlp": True, "num_mlp_layers": 3}, {"decompose": False}], ids=str
)
def test_stress_turns_with_the_cell(config, options, batch):
    """Of clean and of DeNS structures."""
    model = random_head(config, equivariant=True, **options)
    for data in (batch, corrupted(batch.clone())):
        expected, found = turned(model, data)
        off_diagonal = found - torch.diag_embed(found.diagonal(dim1=1, dim2=2))
        scale = found.abs().max()
        assert off_diagonal.abs().max() > 1e-3 * scale
        assert torch.allclose(
            found, expected, atol=(5e-3 if "escn" in config["name"] else 2e-4) * scale
        )


def test_fairchems_stress_does_not_turn_with_the_cell(batch):
    """What is said of it in docs/materials.md."""
    expected, found = turned(random_head(SMALL_EQUIFORMER), batch)
    assert not torch.allclose(found, expected, atol=0.05 * found.abs().max())


@forms
@pytest.mark.parametrize("decompose", [True, False])
def test_batching_and_atoms_without_neighbours(config, decompose):
    """The last atom of a batch has no neighbour: fairchem's head fails."""
    far = slab()
    far.pos = torch.cat([far.pos[:4], far.pos[:1] + torch.tensor([0.0, 0.0, 15.0])])
    for name in ("tags", "fixed", "forces", "atomic_numbers"):
        far[name] = far[name][:5]
    far.natoms, far.cell = 5, 40.0 * torch.eye(3)[None]
    model = with_stress(config, decompose=decompose).eval()
    with torch.no_grad():
        torch.manual_seed(0)
        together = model(Batch.from_data_list([slab(seed=3), far]))
        torch.manual_seed(0)
        alone = model(Batch.from_data_list([far]))
        swapped = model(Batch.from_data_list([far, slab(seed=3)]))
    for name in (name for name in alone if "stress" in name):
        scale = together[name].abs().max()
        assert torch.isfinite(alone[name]).all() and scale > 0
        tolerance = (5e-3 if config["name"] == "escn_dens" else 2e-4) * scale
        assert torch.allclose(together[name][1:], alone[name], atol=tolerance)
        assert torch.allclose(together[name].flip(0), swapped[name], atol=tolerance)


@forms
def test_energy_and_forces_are_those_without_the_head(config, batch):
    plain, more = build_model(config).eval(), with_stress(config).eval()
    state = {name: each for name, each in more.state_dict().items() if "heads." not in name}
    plain.load_state_dict(state)
    with torch.no_grad():
        torch.manual_seed(0)
        expected = plain(batch)
        torch.manual_seed(0)
        found = more(batch)
    assert all(torch.equal(found[name], expected[name]) for name in ("energy", "forces"))
    assert set(found) - set(expected) == {"stress_isotropic", "stress_anisotropic"}


def test_a_scalar_of_another_name(batch):
    """A head of the kind that gives the energy; its parameters have names of their own."""
    gap = {"module": "equiformerV2_scalar_head", "output_name": "band_gap", "reduce": "mean"}
    model = build_model({**SMALL_EQUIFORMER, "heads": {"gap": gap}}).train()
    outputs = model(batch)
    assert outputs["band_gap"].shape == (3,)
    head, energy = (
        dict(each.named_parameters()) for each in (model.heads["gap"], model.energy_head)
    )
    before = copy.deepcopy(energy)
    state = {f"output_heads.gap.{name}": each.detach() + 1 for name, each in head.items()}
    model.load_state_dict(state, strict=False)
    assert all(torch.equal(each, state[f"output_heads.gap.{name}"]) for name, each in head.items())
    assert all(torch.equal(each, before[name]) for name, each in energy.items())


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"output_name": "stress"}, "model.heads.stress.module is missing"),
        ({"module": "rank2_symetric_head"}, "did you mean 'rank2_symmetric_head'"),
        ({**STRESS, "decompos": True}, "model.heads.stress.decompos, did you mean 'decompose'"),
    ],
)
def test_mistakes(head, message):
    with pytest.raises(DensError, match=message):
        build_model({**SMALL_EQUIFORMER, "heads": {"stress": head}})


GAP = {"module": "equiformerV2_scalar_head", "output_name": "band_gap", "reduce": "mean"}
# the names of fairchem's hydra models, and ours
TINY = {**SMALL_EQUIFORMER, "num_layers": 1, "lmax_list": [1], "mmax_list": [1],
        "grid_resolution": 6}  # fmt: skip
LAYOUTS = {"hydra": "module.output_heads.", "ours": "heads."}


def checkpoint_of(heads, prefix):
    state = build_model({**TINY, "heads": heads}).state_dict()
    if prefix == "heads.":
        return state
    for part in ("energy", "force"):
        state = {
            name.replace(f"{part}_head.", f"heads.{part.replace('force', 'forces')}."): each
            for name, each in state.items()
        }
    return {name.replace("heads.", prefix): each for name, each in state.items()}


@pytest.mark.parametrize("prefix", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize(
    ("there", "asked", "words"),
    [
        (["stress"], ["stress"], None),
        (["stress", "gap"], ["gap", "stress"], None),
        ([], [], None),
        (["stress"], [], ["a.pt has a head 'stress'", "model.heads: {stress:", "outputs.stress"]),
        # its parameters have the names of the head of the energy
        (["gap"], [], ["a.pt has a head 'gap'", "model.heads: {gap:"]),
        (["gap", "stress"], ["stress"], ["a.pt has a head 'gap'"]),
        ([], ["stress"], ["model.heads.stress: a.pt has no such head", "it has none", "leave out"]),
        (["gap"], ["stress"], ["a.pt has a head 'gap'"]),
        (["gap"], ["gap", "stress"], ["model.heads.stress: a.pt has no such head", "it has gap"]),
    ],
)
def test_heads_of_a_checkpoint_and_of_the_config(prefix, there, asked, words):
    """One that is not asked for, or is asked for and not there, is one clear message."""
    known = {"stress": STRESS, "gap": GAP}
    state = checkpoint_of({name: known[name] for name in there}, prefix)
    model = build_model({**TINY, "heads": {name: known[name] for name in asked}}, 1)
    if words is None:
        fitted = checkpoint_states.fit(model, state, "a.pt")
        assert fitted.initialised == ()
        return
    with pytest.raises(DensError) as error:
        checkpoint_states.fit(model, state, "a.pt")
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("config", "module"),
    [
        (SMALL_EQUIFORMER, "rank2_symmetric_head"),
        (SMALL_ESCN, "rank2_symmetric_head"),
        (SMALL_ESEN, "esen_rank2_head"),
    ],
    ids=lambda value: value if isinstance(value, str) else value["name"],
)
def test_buffers_of_heads_are_known_by_their_names(config, module):
    """A model without these heads tells parameters from buffers in a checkpoint with them."""
    heads = {"stress": {"module": module, "output_name": "stress", "decompose": True}}
    model = build_model({**config, "heads": heads})
    parameters = dict(model.named_parameters())
    replaced = ("heads.", "energy_head.", "force_head.", *DENS_MODULES)
    names = [name for name in model.state_dict() if name.startswith(replaced)]
    assert any(name not in parameters for name in names)
    for name in names:
        assert is_buffer(name) == (name not in parameters), name
