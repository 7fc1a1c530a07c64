"""fairchem's hydra models of OMat24's recipes, as models of ours."""

import copy

import pytest
import torch
from fairchem.core.common.registry import registry
from fairchem.core.common.utils import setup_imports
from torch_geometric.data import Batch

from dens_ocp.errors import DensError
from dens_ocp.models import checkpoint_states
from dens_ocp.settings import run
from tests.conftest import SMALL_EQUIFORMER, build_model, slab

PLACE = "fairchem.core.models.equiformer_v2.equiformer_v2_dens."
STRESS = {"output_name": "stress", "use_source_target_embedding": True, "decompose": True}
DENS = {
    "use_denoising_pos": True,
    # the word None of the published files is a string in YAML
    "denoising_pos_params": {
        "prob": 0.5, "fixed_noise_std": True, "std": 0.1, "num_steps": 50, "std_low": "None",
        "std_high": "None",
    },
    "denoising_pos_coefficient": 10,
}  # fmt: skip
SMALL = {name: value for name, value in SMALL_EQUIFORMER.items() if name != "name"}


def hydra(backbone, heads, **options):
    return {
        "name": "hydra", "pass_through_head_outputs": True, "otf_graph": True,
        "backbone": backbone, "heads": heads, **options,
    }  # fmt: skip


def read(model, optim=None):
    return run.checked({"trainer": "dens", "optim": optim or DENS, "model": model})["model"]


PUBLISHED = {
    "use_denoising in the heads": (
        {"model": PLACE + "EqV2DeNSBackbone", **SMALL},
        {
            "energy": {"module": PLACE + "DeNSScalarHead", "use_denoising": True},
            "forces": {"module": PLACE + "DeNSVectorHead"},
            "stress": {"module": PLACE + "DeNSRank2Head", **STRESS, "use_denoising": False},
        },
    ),
    "classes that are not in the release": (
        {
            "model": PLACE + "EqV2DeNSBackbone", **SMALL, "use_denoising_energy": True,
            "use_denoising_stress": False,
        },
        {
            "energy": {"module": PLACE + "DeNSEnergyHead"},
            "forces": {"module": PLACE + "DeNSForceHead"},
            "stress": {"module": PLACE + "DeNSRank2Head", **STRESS},
        },
    ),
    "names in the registry": (
        {"model": "equiformer_v2_dens_backbone", **SMALL},
        {
            "energy": {"module": "eqV2_DeNS_scalar_head", "use_denoising": "True"},
            "forces": {"module": "eqV2_DeNS_vector_head"},
            "stress": {"module": "dens_rank2_symmetric_head", **STRESS, "use_denoising": "False"},
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_published_forms_are_one_model(form):
    model = read(hydra(*form))
    assert model.pop("use_denoising_energy", True) is True
    assert model.pop("use_denoising_stress") is False
    assert model == {
        "name": "equiformer_v2_dens", **SMALL, "otf_graph": True,
        "heads": {"stress": {"module": "rank2_symmetric_head", **STRESS}},
    }  # fmt: skip


def test_number_of_parameters_of_the_recipe():
    """fairchem's eqV2_31M_dens_mptrj.yml: 31,207,434 parameters, 34,339,083 with those of DeNS."""
    options = {
        "max_num_elements": 96, "avg_num_nodes": 31.17, "avg_degree": 61.95, "num_layers": 8,
        "sphere_channels": 128, "attn_hidden_channels": 64, "num_heads": 8,
        "attn_alpha_channels": 64, "attn_value_channels": 16, "ffn_hidden_channels": 128,
        "norm_type": "layer_norm_sh", "lmax_list": [4], "mmax_list": [2], "grid_resolution": 18,
        "edge_channels": 128, "num_distance_basis": 512, "attn_activation": "silu",
        "ffn_activation": "silu", "use_grid_mlp": True, "weight_init": "uniform",
    }  # fmt: skip
    heads = PUBLISHED["use_denoising in the heads"][1]
    model = read(hydra({"model": PLACE + "EqV2DeNSBackbone", **options}, heads))
    sizes = {name: each.numel() for name, each in build_model(model).named_parameters()}
    dens = sum(n for name, n in sizes.items() if name.startswith(("force_embedding", "noise_head")))
    assert (sum(sizes.values()) - dens, sum(sizes.values())) == (31_207_434, 34_339_083)


@pytest.mark.parametrize("form", ["use_denoising in the heads", "names in the registry"])
def test_a_checkpoint_of_the_hydra_model(form):
    """Its weights and averaged weights, which are a list in the order of its own parameters."""
    setup_imports()
    config = hydra(*copy.deepcopy(PUBLISHED[form]))
    torch.manual_seed(0)
    stock = registry.get_model_class(config.pop("name"))(**config).eval()
    for parameter in stock.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    state = {f"module.{name}": each.clone() for name, each in stock.state_dict().items()}
    ema = {"shadow_params": [each.detach().clone() for each in stock.parameters()]}
    # the names in the file lie about the weights; the average does not
    wrong = {name: each * 0 for name, each in state.items()}
    model = build_model(read(hydra(*PUBLISHED[form]))).eval()
    batch = Batch.from_data_list([slab(), slab("Pt", "N", 1)])
    with torch.no_grad():
        torch.manual_seed(1)
        expected = stock(batch.clone())
    plain = checkpoint_states.fit(model, state, "a.pt")
    assert plain.initialised == ()
    buffers = {name: each for name, each in plain.state_dict.items()
               if name not in dict(model.named_parameters())}  # fmt: skip
    averaged = checkpoint_states.averaged(model, checkpoint_states.fit(model, wrong, "a.pt"), ema)
    for found in (plain.state_dict, {**averaged.state_dict, **buffers}):
        model.load_state_dict(found)
        with torch.no_grad():
            torch.manual_seed(1)
            outputs = model(batch.clone())
        for name in ("energy", "forces", "stress_isotropic", "stress_anisotropic"):
            scale = expected[name].abs().max()
            assert torch.allclose(outputs[name], expected[name], rtol=0, atol=1e-5 * scale), name


def hydra_config(options):
    return {"model": hydra({"model": "equiformer_v2_backbone", **options}, {})}


CONFIGS = {
    "hydra": hydra_config,
    "flat": lambda options: {"model": {"name": "equiformer_v2", **options}},
    "the authors'": lambda options: {"model": "equiformer_v2_dens", "model_attributes": options},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_options_that_shapes_do_not_show(config, caplog):
    model = build_model({**SMALL_EQUIFORMER, "num_layers": 1, "avg_degree": 61.95})
    checkpoint = {"state_dict": model.state_dict()}
    for options, words in (
        ({}, []),
        ({"max_radius": 6.0, "max_neighbors": 12, "avg_degree": 61.95}, []),
        ({"max_radius": 12.0, "avg_degree": 61.94}, ["max_radius: 12.0 before, 6.0 now",
                                                     "avg_degree: 61.94 before, 61.95 now"]),
    ):  # fmt: skip
        caplog.clear()
        content = {**checkpoint, "config": config({**SMALL, **options})}
        checkpoint_states.fitted(model, content, "a.pt", True, ())
        assert len(caplog.messages) == bool(words)
        assert all(word in caplog.text for word in words)


def test_a_backbone_without_dens_stays_what_it_is():
    """The trainer says that it has no noise head."""
    model = hydra(
        {**BACKBONE, "model": "equiformer_v2_backbone"}, {"energy": ENERGY, "forces": FORCES}
    )
    assert read(model)["name"] == "hydra"


def test_without_dens_it_stays_what_it_is():
    model = hydra(*PUBLISHED["names in the registry"])
    assert read(model, {"use_denoising_pos": False})["name"] == "hydra"


ENERGY, FORCES = ({"module": f"equiformer_v2_{name}_head"} for name in ("energy", "force"))
BACKBONE = {"model": "equiformer_v2_dens_backbone", **SMALL}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (hydra(BACKBONE, {"energy": ENERGY}), "model.heads: there is no head for forces"),
        (hydra(BACKBONE, {"forces": FORCES}), "model.heads: there is no head for energy"),
        (
            hydra(BACKBONE, {"energy": {**ENERGY, "reduce": "mean"}, "forces": FORCES}),
            "model.heads.energy.reduce: 'mean'",
        ),
        (
            hydra(
                BACKBONE, {"energy": ENERGY, "forces": FORCES},
                finetune_config={"starting_checkpoint": "x.pt"},
            ),
            "model.finetune_config.*--checkpoint",
        ),
        (
            hydra(BACKBONE, {"energy": ENERGY, "forces": FORCES}, frieze_backbone=True),
            "unknown option model.frieze_backbone",
        ),
    ],
)  # fmt: skip
def test_mistakes(model, message):
    with pytest.raises(DensError, match=message):
        read(model)
