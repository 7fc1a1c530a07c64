"""Which validation is the best one, for every metric there is."""

import inspect
import math

import pytest
import torch
from fairchem.core.modules import evaluator

from dens_ocp.errors import DensError
from dens_ocp.settings import best_metric
from tests.runs import make_trainer, small_config, write_data

FUNCTIONS = [
    name
    for name, function in inspect.getmembers(evaluator, inspect.isfunction)
    if list(inspect.signature(function).parameters)[:2] == ["prediction", "target"]
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def test_all_functions_of_the_evaluator_are_known():
    assert sorted(FUNCTIONS) == sorted(best_metric.METRICS)


def predictions(error: float) -> dict:
    """Two structures of two atoms; all is off by ``error``, along and across the target."""
    target = {
        "energy": torch.zeros(2, 1), "forces": torch.tensor([[1.0, 0, 0]] * 4),
        "positions": torch.full((4, 3), 2.0), "natoms": torch.tensor([2, 2]),
        "cell": 10 * torch.eye(3)[None].repeat(2, 1, 1), "pbc": torch.tensor([True] * 3),
    }  # fmt: skip
    off = torch.tensor([error, error, error])
    return {
        "target": target,
        "prediction": {
            **target, "energy": target["energy"] + error, "forces": target["forces"] + off,
            "positions": target["positions"] + off,
        },
    }  # fmt: skip


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_smaller_error_is_better(function):
    """Each function is asked about a good and a bad prediction."""
    key = "energy" if "energy" in function or "atom" in function else "forces"
    good, bad = (
        getattr(evaluator, function)(**predictions(error), key=key)["metric"]
        for error in (0.001, 0.2)
    )
    for name in (function, f"forces_{function}", f"mae_{function}", f"is2rs_x_{function}"):
        assert best_metric.is_better(name, good, bad) and not best_metric.is_better(name, bad, good)
        assert best_metric.is_better(name, bad, best_metric.best_so_far(name))
        assert not best_metric.is_better(name, math.nan, bad)


def test_our_own_metrics():
    for name in ("loss", "loss_energy", "loss_forces", "loss_noise",
                 "dens_energy_mae", "dens_forces_mae", "dens_noise_mae"):  # fmt: skip
        assert not best_metric.larger_is_better(name)
    for name in ("dens_structures", "dens_corrupted_atoms", "forces_sum"):
        with pytest.raises(DensError, match="it is not known whether smaller or larger is better"):
            best_metric.larger_is_better(name)


def test_what_fairchem_leaves_before_the_first_validation_is_nothing():
    for recorded in (None, -1.0, 1e9):
        assert best_metric.best_so_far("forces_rmse", recorded) == math.inf
        assert best_metric.best_so_far("forces_cosine_similarity", recorded) == -math.inf
    assert best_metric.best_so_far("forces_rmse", 0.3) == 0.3


@pytest.mark.parametrize(
    "metrics, primary, best",
    [
        ({"forces": ["rmse"]}, None, min),
        ({"forces": ["mse"], "energy": ["mae"]}, "forces_mse", min),
        ({"energy": ["mae"]}, "loss", min),
        ({"forces": ["cosine_similarity"]}, None, max),
        ({"energy": ["mae"]}, None, min),
    ],
)
def test_a_run_keeps_its_best(data, tmp_path, metrics, primary, best):
    config = small_config(data, eval_every=2, lr_initial=0.05)
    config["evaluation_metrics"] = {"metrics": metrics, "primary_metric": primary}
    trainer = make_trainer(config, tmp_path, is_debug=False, print_every=100)
    seen, validate = [], trainer.validate

    def recording(*args, **options):
        seen.append(validate(*args, **options))
        return seen[-1]

    trainer.validate = recording
    trainer.train()
    name = trainer.primary_metric
    values = [each[name]["metric"] for each in seen]
    assert len(set(values)) == 4 and trainer.best_val_metric == best(values)
    (file,) = tmp_path.glob("checkpoints/*/best_checkpoint.pt")
    saved = torch.load(file, weights_only=False)["val_metrics"][name]["metric"]
    assert saved == best(values)
    assert (
        torch.load(file.with_name("checkpoint.pt"), weights_only=False)["best_val_metric"] == saved
    )

    # a resume goes on with it, and a run that fairchem began with -1 has none yet
    again = make_trainer(config, tmp_path / "again", is_debug=False)
    again.load_checkpoint(str(file.with_name("checkpoint.pt")))
    again.checkpoints.start_with_best()
    assert again.best_val_metric == saved
    again.best_val_metric = -1.0
    again.checkpoints.start_with_best()
    assert math.isinf(again.best_val_metric)


def plateau(data, metrics, **params):
    config = small_config(data, scheduler="ReduceLROnPlateau", eval_every=1, max_epochs=1)
    config["optim"]["scheduler_params"] = {"factor": 0.5, "patience": 0, "threshold": 0, **params}
    config["evaluation_metrics"] = {"metrics": {"forces": [metrics]}}
    return config


@pytest.mark.parametrize("metric, mode", [("cosine_similarity", "max"), ("rmse", "min")])
def test_plateau_looks_in_the_direction_of_the_metric(data, tmp_path, metric, mode):
    trainer = make_trainer(plateau(data, metric), tmp_path, is_debug=False)
    scheduler = trainer.scheduler.scheduler
    assert scheduler.mode == mode
    values = iter([0.1, 0.2, 0.3, 0.4])  # larger in each validation
    validate = trainer.validate

    def rising(*args, **options):
        metrics = validate(*args, **options)
        metrics[f"forces_{metric}"]["metric"] = next(values)
        return metrics

    trainer.validate = rising
    trainer.train()
    assert trainer.scheduler.get_lr() == (0.001 if mode == "max" else 0.001 * 0.5**3)

    # a checkpoint of a run with torch's default direction
    (path,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
    state = torch.load(path, weights_only=False)
    state["scheduler"] |= {"mode": "max" if mode == "min" else "min", "best": 0.25}
    torch.save(state, path)
    again = make_trainer(plateau(data, metric), tmp_path / "again", is_debug=False)
    again.load_checkpoint(str(path))
    worst = -math.inf if mode == "max" else math.inf
    scheduler = again.scheduler.scheduler
    assert scheduler.mode == mode and scheduler.best == scheduler.mode_worse == worst


def test_mistakes_are_said_before_training(data, tmp_path):
    config = small_config(data)
    for name, words in (
        ("forces_rsme", "is not one of evaluation_metrics.metrics.*did you mean 'forces_mae'"),
        ("dens_noise_mae", "is not one of evaluation_metrics.metrics"),
    ):
        config["evaluation_metrics"]["primary_metric"] = name
        with pytest.raises(DensError, match=words):
            make_trainer(config, tmp_path)
    with pytest.raises(DensError, match="scheduler_params.mode: min .* write max"):
        make_trainer(plateau(data, "cosine_similarity", mode="min"), tmp_path)
    config = plateau(data, "rmse")
    del config["dataset"]["val"]
    with pytest.raises(DensError, match="ReduceLROnPlateau needs a validation"):
        make_trainer(config, tmp_path)


def test_validation_at_the_end_of_each_epoch(data, tmp_path):
    """As in the authors' OC20 code; otherwise every ``eval_every`` steps and at the end."""

    def validated(**optim) -> list[int]:
        trainer = make_trainer(small_config(data, eval_every=3, max_epochs=3, **optim), tmp_path)
        steps, validate = [], trainer.validate

        def noting(*args, **options):
            steps.append(trainer.step)
            return validate(*args, **options)

        trainer.validate = noting
        trainer.train(disable_eval_tqdm=True)
        return steps

    assert validated() == [3, 6, 9, 12]
    assert validated(eval_each_epoch=True) == [3, 4, 6, 8, 9, 12]
    with pytest.raises(DensError, match="optim.eval_each_epoch: 'each' is neither True nor False"):
        validated(eval_each_epoch="each")
