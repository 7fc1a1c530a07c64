"""``model.fast``: same outputs and the same gradient of every parameter."""

import importlib
import pkgutil
import sys

import pytest
import torch
from fairchem.core.models.equiformer_v2.drop import GraphDropPath
from fairchem.core.models.equiformer_v2.input_block import EdgeDegreeEmbedding
from fairchem.core.models.equiformer_v2.transformer_block import (
    FeedForwardNetwork,
    SO2EquivariantGraphAttention,
)

import dens_ocp.models.fast
from dens_ocp.models.chosen_atoms import ExactRotation
from dens_ocp.models.fast import switch
from dens_ocp.models.fast.operations import launches, s2_activation
from dens_ocp.models.fast.operations.drop_path import FewLaunchesDropPath
from dens_ocp.models.fast.operations.sphere_kernel import plain_silu
from dens_ocp.relaxation.repeatable_frames import FromGeometry
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model
from tests.models.test_chosen_atoms import double, masks, run
from tests.models.test_models import corrupted
from tests.plans import attach_scored

EQV2, ESCN = SMALL_EQUIFORMER, {**SMALL_ESCN, "num_sphere_samples": 64}
ESEN = SMALL_ESEN
DROPOUT = {"alpha_drop": 0.2, "drop_path_rate": 0.1, "proj_drop": 0.1}
CONFIGS = {
    "eqv2": EQV2,
    "eqv2 with dropout": {**EQV2, **DROPOUT},
    "eqv2 grid mlp": {**EQV2, "use_grid_mlp": True},
    "eqv2 activation checkpoints": {**EQV2, "use_grid_mlp": True, "activation_checkpoint": True},
    "eqv2 Lmax 4, mmax 1": {**EQV2, "lmax_list": [4], "mmax_list": [1]},
    "eqv2 mmax 0": {**EQV2, "mmax_list": [0]},
    "eqv2 mmax = Lmax": {**EQV2, "mmax_list": [3], "use_grid_mlp": True},
    "eqv2 shared radial": {**EQV2, "use_m_share_rad": True},
    "eqv2 shared elements": {**EQV2, "share_atom_edge_embedding": True},
    "eqv2 no elements": {**EQV2, "use_atom_edge_embedding": False},
    "eqv2 whole sphere": {**EQV2, "use_sep_s2_act": False, "use_grid_mlp": True},
    "eqv2 whole sphere, S2": {**EQV2, "use_sep_s2_act": False},
    "eqv2 gate": {**EQV2, "use_gate_act": True},
    "eqv2 rms norm": {**EQV2, "norm_type": "rms_norm_sh", "weight_init": "uniform"},
    "eqv2 no renorm": {**EQV2, "use_attn_renorm": False},
    "escn": ESCN,
    "escn Lmax 4, mmax 2": {**ESCN, "lmax_list": [4]},
    "escn resolution": {**ESCN, "lmax_list": [4], "resolution": 12},
    "escn activation checkpoints": {**ESCN, "activation_checkpoint": True},
    "esen": ESEN,
    "esen S2, grid mlp": {**ESEN, "act_type": "s2", "mlp_type": "grid", "use_envelope": False},
    "esen Lmax 4, mmax 2": {**ESEN, "lmax": 4},
    "esen mmax 0": {**ESEN, "mmax": 0},
    "esen S2, Lmax 3, mmax 1": {**ESEN, "act_type": "s2", "lmax": 3, "mmax": 1},
    "esen activation checkpoints": {**ESEN, "activation_checkpointing": True},
    "esen layer norm, bessel": {
        **ESEN,
        "norm_type": "layer_norm_sh",
        "distance_function": "bessel",
    },
}
GRADIENTS = {name: each for name, each in CONFIGS.items() if name.startswith("esen")}


@pytest.fixture(params=[False, True], ids=["blocks", "few launches"])
def form(request, monkeypatch):
    """The form for CPUs, and the one for GPUs."""
    monkeypatch.setattr(launches, "FORCED", request.param)


def both(config, batch, kind="free"):
    """Outputs and gradients of fairchem's path and of the fast one, in float64."""
    data, found = corrupted(batch), []
    mask = masks(data)[kind]
    attach_scored(data, mask)
    for fast in (False, True):
        model = build_model({**config, "fast": fast}).train()
        with double(model, data.clone()) as model:
            copy = data.clone()
            for name in ("pos", "cell", "forces", "noise_vec", "sigmas"):
                copy[name] = copy[name].double()
            found.append(run(model, copy, mask))
    return found


def compare(slow, fast, tolerance=1e-9):
    for name, a, b in zip(("energy", "forces", "noise"), slow, fast, strict=False):
        assert a.shape == b.shape
        if a.numel():
            assert (a - b).abs().max() <= tolerance * max(1, a.abs().max()), name
    assert list(slow[3]) == list(fast[3])
    for name, a in slow[3].items():
        assert (a - fast[3][name]).abs().max() <= tolerance * max(1, a.abs().max()), name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_equal_in_float64(config, batch, form, monkeypatch):
    # in few launches paths are dropped by other random numbers (test_layer_graphs.py)
    monkeypatch.setattr(FewLaunchesDropPath, "forward", GraphDropPath.forward)
    slow, fast = both(config, batch)
    compare(slow, fast)
    assert any(gradient.any() for gradient in fast[3].values())


@pytest.mark.parametrize("config", GRADIENTS.values(), ids=GRADIENTS)
def test_gradient_forces_in_float64(config, batch):
    """Forces, and second derivatives: the loss looks at the forces."""
    data = corrupted(batch)
    found = []
    for fast in (False, True):
        model = build_model({**config, "fast": fast, "forces": "gradient"}).train().double()
        keep_graph_in_double(model)
        own = data.clone()
        for name in ("pos", "cell", "forces", "noise_vec", "sigmas"):
            own[name] = own[name].double()
        found.append(run(model, own, torch.ones_like(data.noise_mask)))
    compare(*found)
    assert found[0][1].abs().max() > 1e-4


def keep_graph_in_double(model):
    """fairchem finds neighbours in float32 only; vectors follow from the positions here."""
    generate = model.generate_graph

    def graph_in_double(moved, **options):
        single = moved.clone()
        single.pos, single.cell = moved.pos.detach().float(), moved.cell.detach().float()
        graph = generate(single, **options)
        source, target = graph["edge_index"]
        images = graph["cell_offsets"].double()
        shift = torch.einsum("ei,eij->ej", images, moved.cell[moved.batch[target]])
        vectors = moved.pos[source] - moved.pos[target] + shift
        assert torch.allclose(vectors.float(), graph["edge_distance_vec"], atol=1e-4)
        return {**graph, "edge_distance_vec": vectors, "edge_distance": vectors.norm(dim=1)}

    model.generate_graph = graph_in_double


@pytest.mark.parametrize("kind", ["one", "none", "all"])
@pytest.mark.parametrize("config", [EQV2, ESCN, ESEN], ids=["eqv2", "escn", "esen"])
def test_for_every_mask(config, kind, batch, form):
    compare(*both(config, batch, kind))


@pytest.mark.parametrize("size", [1, 5000])
@pytest.mark.parametrize(
    "config", [{**EQV2, "use_grid_mlp": True}, ESCN, ESEN], ids=["eqv2", "escn", "esen"]
)
def test_for_every_size_of_block(config, size, batch, monkeypatch):
    monkeypatch.setattr(launches, "CPU_VALUES", size)
    compare(*both(config, batch))


@pytest.mark.parametrize(
    "config",
    [EQV2, {**EQV2, "use_sep_s2_act": False, "use_grid_mlp": False}, ESCN],
    ids=["eqv2", "eqv2 whole sphere", "escn"],
)
def test_with_the_coefficients_of_all_orders_in_one_tensor(config, batch, monkeypatch):
    """As on a GPU, where a kernel takes them so (`test_sphere_kernel.py` runs it)."""
    calls = []

    def fused_silu(*inputs):
        calls.append(inputs)
        return plain_silu(*inputs)

    monkeypatch.setattr(s2_activation, "usable", lambda device, dtype: True)
    monkeypatch.setattr(s2_activation, "fused_silu", fused_silu)
    compare(*both(config, batch))
    assert calls


def outputs_and_gradients(config, batch, fast, autocast=False, train=True):
    model = build_model({**config, "fast": fast}).train(train)
    torch.manual_seed(1)
    # frames that follow from the geometry: random ones change values by 1e-3
    with (
        FromGeometry(),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        torch.set_grad_enabled(train),
    ):
        outputs = model(batch.clone())
    if not train:
        return outputs, []
    sum(value.float().pow(2).sum() for value in outputs.values()).backward()
    return outputs, [p.grad for p in model.parameters() if p.requires_grad]


def distance(a, b) -> float:
    return ((a - b).norm() / (a.norm() + 1e-12)).item()


def without_kept_values():
    """Constants of the modules of models, which the first to ask makes, are made again."""
    for name, module in list(sys.modules.items()):
        for each in vars(module).values() if name.startswith("dens_ocp.models.") else ():
            if hasattr(each, "cache_clear"):
                each.cache_clear()


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize(
    "config", [{**EQV2, "use_grid_mlp": True}, ESCN, ESEN], ids=["eqv2", "escn", "esen"]
)
def test_nothing_of_autocast_is_kept(config, batch, form, fast):
    """What is made at the first call, under autocast, is as exact as without."""
    data, outputs = corrupted(batch), []
    for autocast_first in (False, True):
        without_kept_values()
        model = build_model({**config, "fast": fast}).train()
        if autocast_first:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
                model(data.clone())
        with torch.no_grad(), FromGeometry():
            outputs.append(model(data.clone()))
    for name, value in outputs[0].items():
        assert torch.equal(value, outputs[1][name]), name


@pytest.mark.parametrize(
    "config", [{**EQV2, "use_grid_mlp": True}, ESCN, ESEN], ids=["eqv2", "escn", "esen"]
)
def test_equal_in_float32(config, batch, form):
    data = corrupted(batch)
    slow, fast = (outputs_and_gradients(config, data, fast) for fast in (False, True))
    for name, value in slow[0].items():
        assert distance(value, fast[0][name]) < 1e-4, name
    for a, b in zip(slow[1], fast[1], strict=True):
        assert a.shape == b.shape
    whole = [torch.cat([each.flatten() for each in found]) for found in (slow[1], fast[1])]
    assert distance(*whole) < 1e-4


@pytest.mark.parametrize(
    "config", [{**EQV2, "use_grid_mlp": True}, ESCN, ESEN], ids=["eqv2", "escn", "esen"]
)
def test_autocast_is_fairchems_to_its_rounding(config, batch, form):
    data = corrupted(batch)
    exact, _ = outputs_and_gradients(config, data, fast=False)
    slow, fast = (
        outputs_and_gradients(config, data, fast, autocast=True) for fast in (False, True)
    )
    for name, value in exact.items():
        assert fast[0][name].dtype == slow[0][name].dtype
        a, b = slow[0][name].float(), fast[0][name].float()
        # nearly equal; or, of values that nearly cancel, as near to float32
        assert distance(a, b) < 0.05 or distance(value, b) < 1.5 * distance(value, a), name
    whole = [torch.cat([each.flatten() for each in found]) for found in (slow[1], fast[1])]
    assert distance(*whole) < 0.05


@pytest.mark.parametrize(
    "config", [{**EQV2, "use_grid_mlp": True}, ESCN, ESEN], ids=["eqv2", "escn", "esen"]
)
def test_prediction(config, batch, form):
    slow, fast = (
        outputs_and_gradients(config, batch, fast, train=False)[0] for fast in (False, True)
    )
    for name, value in slow.items():
        assert distance(value, fast[name]) < 1e-4, name


@pytest.mark.parametrize("config", [EQV2, {**EQV2, "use_grid_mlp": True}, ESCN])
def test_names_and_state_stay(config):
    slow, fast = (build_model({**config, "fast": fast}) for fast in (False, True))
    for (name, a), (other, b) in zip(
        slow.state_dict().items(), fast.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(a, b)


KINDS = (
    "eqv2 grid mlp", "eqv2 whole sphere, S2", "eqv2 with dropout", "escn", "esen S2, grid mlp",
)  # fmt: skip


@pytest.mark.parametrize("line", switch.TABLE, ids=lambda line: line[1].__name__)
def test_a_line_that_is_missing_in_the_table_is_an_error(line, monkeypatch):
    configs = [*(CONFIGS[kind] for kind in KINDS), {**ESEN, "forces": "gradient"}]
    models = [build_model({**config, "fast": False}) for config in configs]
    rest = tuple(each for each in switch.TABLE if each != line)
    monkeypatch.setattr(switch, "TABLE", rest)
    errors = []
    for model in models:
        try:
            switch.make_fast(model)
        except RuntimeError as error:
            errors.append(str(error))
    stock, fast = line
    assert any(f"{stock.__name__} has a fast form, {fast.__name__}" in each for each in errors)


def test_the_table_has_every_fast_class_once():
    """Also one that nothing imports yet."""
    for module in pkgutil.walk_packages(dens_ocp.models.fast.__path__, "dens_ocp.models.fast."):
        if not module.name.endswith("sphere_programs"):  # needs Triton
            importlib.import_module(module.name)
    lines = [(form.stock(), form) for form in switch.forms()]
    assert sorted(map(str, lines)) == sorted(map(str, switch.TABLE))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_part_is_exchanged(config):
    """But for EquiformerV2 with gate activation, which keeps fairchem's attention."""
    model = build_model({**config, "fast": True})
    kept = {type(module) for module in model.modules()} & dict(switch.TABLE).keys()
    gate = {SO2EquivariantGraphAttention, EdgeDegreeEmbedding, ExactRotation, FeedForwardNetwork}
    assert kept == (gate if config.get("use_gate_act") else set())
