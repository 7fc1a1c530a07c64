"""Two ranks with the DDP of GPUs, which asks for every parameter in the graph at every step."""

import copy

import pytest
import torch
from torch.nn.parallel.distributed import DistributedDataParallel

from dens_ocp.errors import DensError
from dens_ocp.launch.data_parallel import FixedBuckets
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN
from tests.ranks import on_ranks
from tests.runs import make_trainer, small_config, write_data

STOCK = {key: value for key, value in SMALL_EQUIFORMER.items() if key != "name"}
HYDRA = {
    "name": "hydra",
    "pass_through_head_outputs": True,
    "backbone": {"model": "equiformer_v2_backbone", **STOCK},
    "heads": {
        "energy": {"module": "equiformerV2_scalar_head"},
        "forces": {"module": "equiformerV2_vector_head"},
    },
}
GRADIENT = {
    "name": "equiformer_dens", "irreps_node_embedding": "8x0e+4x1e+2x2e", "num_layers": 1,
    "irreps_sh": "1x0e+1x1e+1x2e", "irreps_feature": "16x0e", "irreps_head": "4x0e+2x1e+2x2e",
    "num_heads": 2, "irreps_mlp_mid": "8x0e+4x1e+2x2e", "number_of_basis": 8, "max_radius": 5.0,
    "max_num_elements": 90,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def forces_only(config: dict, output: bool) -> dict:
    """No loss of the energy; ``output``: it is still an output with metrics."""
    config = copy.deepcopy(config)
    config["loss_functions"] = [config["loss_functions"][1]]
    if not output:
        del config["outputs"]["energy"]
        config["evaluation_metrics"]["metrics"].pop("energy")
    return config


def energy_only(config: dict) -> dict:
    config = copy.deepcopy(config)
    config["loss_functions"] = [config["loss_functions"][0]]
    del config["outputs"]["forces"]
    config["evaluation_metrics"] = {"metrics": {"energy": ["mae"]}}
    return config


def train(configs: list[dict], run_dir) -> list:
    """The parameters and metrics after the steps of each config."""
    found = []
    for config in configs:
        trainer = make_trainer(config, run_dir, is_debug=True, print_every=1000)
        trainer.train(disable_eval_tqdm=True)
        plain = type(trainer.model) is DistributedDataParallel
        parameters = [each.detach().numpy().copy() for each in trainer.model.parameters()]
        metrics = {name: each["metric"] for name, each in trainer.sums.fetch().items()}
        found.append((plain, trainer.step, metrics, parameters))
    return found


def configs_of(data):
    few = {"batch_size": 2, "max_epochs": 1}
    for model in (SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, GRADIENT):
        config = small_config(data, model=model, **few)
        yield "all", config
        yield "forces only", forces_only(config, output=True)
        yield "forces only", forces_only(config, output=False)
        off = small_config(data, model=model, dens={"enabled": False}, **few)
        yield "energy only", energy_only(off)
        yield "all", off
    stock = small_config(data, model=HYDRA, dens={"enabled": False}, **few)
    yield "all", stock
    yield "forces only", forces_only(stock, output=False)


@pytest.mark.slow
def test_every_model_and_loss_trains_on_two_ranks(data, tmp_path):
    kinds, configs = zip(*configs_of(data), strict=True)
    ranks = on_ranks(2, train, list(configs), tmp_path, seconds=300)
    for kind, config, one, two in zip(kinds, configs, *ranks, strict=True):
        assert one[0] and two[0], "plain DDP"
        assert one[1] == two[1] == 3
        assert all(
            torch.equal(torch.as_tensor(a), torch.as_tensor(b))
            for a, b in zip(one[3], two[3], strict=True)
        )
        metrics = one[2]
        assert ("energy_mae" in metrics) == ("energy" in config["outputs"])
        assert ("loss_energy" in metrics) == (kind != "forces only")


def test_the_default_is_plain_on_gpus_and_fixed_buckets_here(data, tmp_path):
    def kind(config):
        return type(make_trainer(config, tmp_path).model).__name__

    config = small_config(data)
    assert on_ranks(2, kind, config) == ["DistributedDataParallel"] * 2
    del config["optim"]["ddp_find_unused_parameters"]
    assert on_ranks(2, kind, config) == [FixedBuckets.__name__] * 2
    config["optim"]["ddp_find_unused_parameters"] = "auto"
    with pytest.raises(DensError, match="optim.ddp_find_unused_parameters: 'auto' is neither"):
        make_trainer(config, tmp_path)


def test_energy_errors_of_dens_structures_are_those_of_the_model_or_absent(data, tmp_path):
    """Without an energy output the raw label was taken for the prediction."""
    config = small_config(data, dens={"p": 1.0, "r": 0.5, "sigma": 0.1, "coefficient": 1})
    for output in (True, False):
        trainer = make_trainer(forces_only(config, output), tmp_path)
        batch = next(iter(trainer.train_loader))
        trainer.step = 1
        trainer.model.train()
        out = trainer._forward(batch)
        trainer._compute_loss(out, batch).backward()
        metrics = trainer._compute_metrics(out, batch, trainer.evaluator)
        assert all(each.grad is not None for each in trainer.model.parameters())
        if output:
            error = (out["energy"] * 1.4 - 0.3 - batch.energy.view(-1, 1)).abs().mean()
            assert metrics["dens_energy_mae"]["metric"] == pytest.approx(error.item(), rel=1e-5)
        else:
            assert "energy" not in out and "dens_energy_mae" not in metrics
        assert metrics["dens_structures"]["metric"] == 1.0


def test_dens_without_a_loss_of_forces_is_refused(data, tmp_path):
    config = small_config(data)
    config["loss_functions"] = config["loss_functions"][:1]
    with pytest.raises(DensError, match="loss_functions: DeNS trains noise with the force loss"):
        make_trainer(config, tmp_path)
