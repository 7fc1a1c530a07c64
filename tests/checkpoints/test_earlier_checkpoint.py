"""A run resumed from an earlier checkpoint than its last, under the same name: nothing is lost."""

import logging

import pytest
import torch

from tests.runs import make_trainer, small_config


def content(path) -> dict:
    return torch.load(path, weights_only=False)


def trainer_of(data, run_dir, checkpoint=None, **optim):
    optim = {"checkpoint_every": 2, "eval_every": 2, "keep_checkpoints": 9, **optim}
    trainer = make_trainer(
        small_config(data, **optim), run_dir, is_debug=False, timestamp_id="run", print_every=100
    )
    if checkpoint is not None:
        trainer.load_checkpoint(str(checkpoint))
    return trainer


def steps(folder) -> dict[str, int]:
    return {path.name: content(path).get("step") for path in folder.glob("*checkpoint*.pt")}


@pytest.fixture
def folder(data, tmp_path):
    """Of a run of eight steps, validated and saved at each second one."""
    trainer_of(data, tmp_path).train()
    return tmp_path / "checkpoints" / "run"


def test_later_ones_are_kept(data, tmp_path, folder, caplog):
    numbered = {f"checkpoint.{step}.pt": step for step in (2, 4, 6)}
    assert steps(folder) == {**numbered, "checkpoint.pt": 8, "best_checkpoint.pt": None}
    best = content(folder / "best_checkpoint.pt")["val_metrics"]["forces_mae"]["metric"]
    assert best < content(folder / "checkpoint.4.pt")["best_val_metric"], "found after step 4"

    resumed = trainer_of(data, tmp_path, folder / "checkpoint.4.pt", lr_initial=0.0)
    assert steps(folder)["checkpoint.pt"] == 8, "nothing happens before there is something new"
    with caplog.at_level(logging.WARNING):
        resumed.train()
    assert steps(folder) == {
        **numbered, "checkpoint.pt": 8, "best_checkpoint.pt": None,
        "replaced.checkpoint.pt": 8, "replaced.checkpoint.6.pt": 6,
        "replaced.best_checkpoint.pt": None,
    }  # fmt: skip
    kept = content(folder / "replaced.best_checkpoint.pt")["val_metrics"]["forces_mae"]["metric"]
    assert kept == best
    assert "kept as replaced.checkpoint.pt, replaced.checkpoint.6.pt" in caplog.text

    # and once more: the names are taken
    trainer_of(data, tmp_path, folder / "checkpoint.4.pt").train()
    names = set(steps(folder))
    assert {"replaced-2.checkpoint.pt", "replaced-2.checkpoint.6.pt"} <= names
    assert {"replaced.checkpoint.pt", "replaced.checkpoint.6.pt"} <= names


@pytest.mark.parametrize("start", ["another run's", "best_checkpoint.pt"])
def test_a_start_from_elsewhere_keeps_all(data, tmp_path, folder, start):
    path = folder / "best_checkpoint.pt"
    if start == "another run's":
        path = tmp_path / "elsewhere.pt"
        torch.save(content(folder / "checkpoint.6.pt"), path)
    trainer_of(data, tmp_path, path, max_epochs=2 if start == "another run's" else 1).train()
    found = steps(folder)
    kept = {name: step for name, step in found.items() if name.startswith("replaced.checkpoint")}
    assert kept == {
        "replaced.checkpoint.pt": 8,
        **{f"replaced.checkpoint.{step}.pt": step for step in (2, 4, 6)},
    }
    assert "replaced.best_checkpoint.pt" in found


@pytest.mark.parametrize("how", ["newest", "damaged newest"])
def test_a_resume_from_the_last_one_replaces_nothing(data, tmp_path, folder, how):
    path = folder / "checkpoint.pt"
    if how == "damaged newest":
        path.write_bytes(path.read_bytes()[:1000])
    trainer_of(data, tmp_path, path, max_epochs=3).train()
    assert not [name for name in steps(folder) if name.startswith("replaced")]
