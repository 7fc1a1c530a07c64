"""The evaluation's config: what is asked for, what comes from the checkpoint, mistakes."""

import pytest
import torch
import yaml

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.jobs import jobs_of
from dens_ocp.results.pipeline.options import load_settings
from tests.conftest import ROOT, SMALL_EQUIFORMER

TRAINED = {
    "config": {
        "model": SMALL_EQUIFORMER,
        "optim": {"batch_size": 3, "dens": {"p": 0.5}},
        "outputs": {"energy": {"level": "system"}},
        "task": {"relaxation_steps": 7},
        "dataset": {"src": "nowhere"},
    }
}


def write(path, evaluation, **others):
    path.write_text(yaml.safe_dump({"evaluation": evaluation, **others}))
    return path


def test_sources_and_what_comes_from_the_checkpoint(tmp_path):
    path = write(
        tmp_path / "c.yml",
        {
            "board": "oc22",
            "dataset": {"format": "oc22_lmdb"},
            "s2ef": {"ood": "b", "id": "a"},
            "is2re": {"id": {"src": "c", "format": "lmdb"}},
        },
        optim={"eval_batch_size": 9},
    )
    settings = load_settings(path, TRAINED, ["--task.relaxation_steps=5"])
    assert settings.board.name == "OC22" and settings.splits == ("id", "ood")
    assert settings.s2ef == {
        "id": {"format": "oc22_lmdb", "src": "a"},
        "ood": {"format": "oc22_lmdb", "src": "b"},
    }
    assert settings.is2re == {"id": {"format": "lmdb", "src": "c"}}
    assert settings.host["model"] == SMALL_EQUIFORMER
    assert settings.host["optim"]["eval_batch_size"] == 9
    assert settings.host["optim"]["batch_size"] == 3
    assert settings.host["task"] == {"relaxation_steps": 5}
    assert "dataset" not in settings.host


@pytest.mark.parametrize(("p", "expected"), [(0.5, True), (0.0, False)])
def test_whether_it_was_trained_with_dens_is_of_the_checkpoint(tmp_path, p, expected):
    """Not of a training config that the evaluation's includes."""
    trained = {"config": {**TRAINED["config"], "optim": {"batch_size": 3, "dens": {"p": p}}}}
    path = write(tmp_path / "c.yml", {"s2ef": {"val": "a"}}, optim={"dens": {"p": 0.5 - p}})
    assert load_settings(path, trained, []).trained_with_dens is expected


def test_jobs(tmp_path):
    path = write(tmp_path / "c.yml", {"board": "OC22", "s2ef": {"id": "a"}, "is2re": {"ood": "c"}})
    folder = EvaluationFolder(tmp_path / "out")
    relax, predict = jobs_of(load_settings(path, TRAINED, []), folder)
    assert (relax.name, predict.name) == ("relax-ood", "predict-id")
    assert list(predict.config["dataset"]) == ["test"]
    assert predict.config["dataset"]["test"]["src"] == "a"
    assert predict.config["task"]["prediction_dtype"] == "float32"
    assert relax.config["task"]["relax_opt"]["traj_dir"] == str(folder.trajectories("ood"))
    assert relax.config["task"]["write_pos"] is True


def test_authors_form_of_the_checkpoint(tmp_path):
    path = write(tmp_path / "c.yml", {"s2ef": {"mine": "a"}})
    settings = load_settings(
        path, {"config": {"model": "escn_dens", "model_attributes": {"num_layers": 2}}}, []
    )
    assert settings.host["model"] == {"name": "escn_dens", "num_layers": 2}
    assert settings.board is None and settings.splits == ("mine",)


def test_a_split_is_switched_off_with_an_empty_path(tmp_path):
    path = write(tmp_path / "c.yml", {"board": "OC22", "s2ef": {"id": "a", "ood": "b"}})
    settings = load_settings(path, TRAINED, ["--evaluation.s2ef.ood="])
    assert list(settings.s2ef) == ["id"]


@pytest.mark.parametrize(
    ("evaluation", "words"),
    [
        (None, "no section evaluation"),
        ({"bord": "OC20"}, "evaluation.bord is not an option, did you mean 'board'"),
        ({"board": "OC21", "s2ef": {"id": "a"}}, "no board 'OC21', did you mean"),
        ({"board": "OC20", "s2ef": {"ood_cats": "a"}}, "did you mean 'ood_cat'"),
        ({"board": "OC20"}, "names no data to evaluate on"),
    ],
)
def test_mistakes(tmp_path, evaluation, words):
    with pytest.raises(DensError, match=words):
        load_settings(write(tmp_path / "c.yml", evaluation), TRAINED, [])


def test_no_config_and_no_model(tmp_path):
    with pytest.raises(DensError, match="does not exist"):
        load_settings(tmp_path / "none.yml", TRAINED, [])
    (tmp_path / "broken.yml").write_text("a: [")
    with pytest.raises(DensError, match="not valid YAML"):
        load_settings(tmp_path / "broken.yml", TRAINED, [])
    with pytest.raises(DensError, match="no config with a model"):
        load_settings(write(tmp_path / "c.yml", {"s2ef": {"id": "a"}}), {}, [])


def test_a_training_config_of_another_model(tmp_path):
    path = write(tmp_path / "c.yml", {"s2ef": {"id": "a"}}, model={"name": "esen_dens"})
    with pytest.raises(DensError, match="has esen_dens, but the checkpoint is of equiformer_v2"):
        load_settings(path, TRAINED, [])
    write(path, {"s2ef": {"id": "a"}}, model={"name": "equiformer_v2_dens", "fast": False})
    assert load_settings(path, TRAINED, []).host["model"]["fast"] is False


def test_sizes_of_the_model_are_the_checkpoints(tmp_path, caplog):
    """A training config whose model was changed on the command line of the training."""
    bigger = {**SMALL_EQUIFORMER, "num_layers": 12, "fast": False}
    path = write(tmp_path / "c.yml", {"s2ef": {"id": "a"}}, model=bigger)
    model = load_settings(path, TRAINED, []).host["model"]
    assert model == {**SMALL_EQUIFORMER, "fast": False}
    assert "model.num_layers 2" in caplog.text and "sphere_channels" not in caplog.text
    model = load_settings(path, TRAINED, ["--model.num_layers=1"]).host["model"]
    assert model["num_layers"] == 1


def test_one_data_set_for_two_splits_of_a_board(tmp_path):
    twice = {"s2ef": {"id": "data/val", "ood_ads": "./data/val"}}
    with pytest.raises(DensError, match="evaluation.s2ef.id and evaluation.s2ef.ood_ads are the"):
        load_settings(write(tmp_path / "c.yml", {"board": "OC20", **twice}), TRAINED, [])
    load_settings(write(tmp_path / "c.yml", twice), TRAINED, [])  # scores alone


@pytest.mark.parametrize("name", ["oc20/evaluate", "oc20/2M/evaluate", "oc22/evaluate"])
def test_configs_of_the_paper(name):
    settings = load_settings(ROOT / "configs" / f"{name}.yml", TRAINED, [])
    assert settings.splits == settings.board.splits
    assert list(settings.s2ef) == list(settings.is2re) == list(settings.board.splits)
    task = settings.host["task"]
    small = "2M" in name
    assert task["relaxation_steps"] == (200 if small else 300)
    assert task["relaxation_fmax"] == 0.02
    assert task["relax_opt"] == {
        "maxstep": 0.04 if small else 0.2,
        "memory": 50,
        "damping": 1.0 if small else 1.2,
        "alpha": 70.0 if small else 80.0,
    }
    dtype = {"OC20": torch.float16, "OC22": torch.float32}[settings.board.name]
    assert task["prediction_dtype"] == str(dtype).removeprefix("torch.")
