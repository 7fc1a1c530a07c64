"""The first line of a run, and the options that a resumed run does not look at."""

import logging

import pytest
import torch

from dens_ocp.checkpoints import run_start
from tests.runs import make_trainer, small_config


@pytest.fixture
def runs(tmp_path):
    """Two runs with checkpoints, one that has none yet."""
    for name, steps in (("first", (4, 8)), ("second", (20,)), ("empty", ())):
        folder = tmp_path / "checkpoints" / name
        folder.mkdir(parents=True)
        for step in steps:
            path = folder / ("checkpoint.pt" if step == max(steps) else f"checkpoint.{step}.pt")
            torch.save({"step": step, "state_dict": {}}, path)
        if steps:
            torch.save({"state_dict": {}}, folder / "best_checkpoint.pt")
    return tmp_path


def test_first_line(runs):
    folder = runs / "checkpoints"

    def said(name=None, checkpoint=None):
        return run_start.first_line(runs, name, checkpoint and str(folder / checkpoint))

    assert said() == "New run"
    assert said("first") == f"Run first resumes at step 8, from {folder}/first/checkpoint.pt"
    (folder / "first/checkpoint.pt").write_bytes(b"damaged")
    assert said("first").startswith("Run first resumes at step 4, from ")
    nothing = "there is no checkpoint in {} to resume from"
    assert said("empty") == f"New run empty ({nothing.format(folder / 'empty')})"
    assert "to resume from, did you mean 'second'?)" in said("secnod")
    clock = "2026-01-02-03-04-05-123456"
    (folder / "2026-01-02-03-04-05-123455").mkdir()
    torch.save({"step": 1}, folder / "2026-01-02-03-04-05-123455/checkpoint.pt")
    assert said(clock) == f"New run {clock} ({nothing.format(folder / clock)})"
    path = folder / "first/checkpoint.4.pt"
    assert said("first", "first/checkpoint.4.pt") == f"Run first resumes at step 4, from {path}"
    path = folder / "second/checkpoint.pt"
    expected = f"New run other: resumes at step 20 of second, from {path}"
    assert said("other", "second/checkpoint.pt") == expected
    path = folder / "second/best_checkpoint.pt"
    assert said("other", "second/best_checkpoint.pt") == (
        f"New run other: step 0, with the weights of {path}"
    )


def test_options_without_effect(data, tmp_path, caplog):
    config = small_config(data, max_epochs=1)
    trainer = make_trainer(config, tmp_path, is_debug=False, timestamp_id="run", print_every=100)
    trainer.train()
    path = tmp_path / "checkpoints/run/checkpoint.pt"
    rate, decay = trainer.scheduler.get_lr(), trainer.ema.decay

    def resumed(**optim):
        changed = small_config(data, **optim)
        changed["dataset"]["train"]["transforms"]["normalizer"]["forces"]["stdev"] = 2.5
        again = make_trainer(changed, tmp_path / "again", print_every=100)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            again.load_checkpoint(str(path))
        (said,) = [
            each for each in caplog.messages if each.startswith("These options have no effect")
        ]
        return again, said

    again, said = resumed(
        max_epochs=1, lr_initial=0.5, optimizer_params={"weight_decay": 0.3}, ema_decay=0.5,
        clip_grad_norm=1,
    )  # fmt: skip
    assert said == (
        "These options have no effect, because the values of the checkpoint are used: "
        "optim.lr_initial: 0.5 (the checkpoint's 0.001 is used); "
        "optim.ema_decay: 0.5 (the checkpoint's 0.9 is used); "
        "optim.optimizer_params.weight_decay: 0.3 (the checkpoint's 0.001 is used); "
        "dataset.train.transforms.normalizer.forces.stdev: 2.5 (the checkpoint's 1.7 is used)"
    )
    # and it is so
    assert again.scheduler.get_lr() == rate and again.ema.decay == decay == 0.9
    assert {group["weight_decay"] for group in again.optimizer.param_groups} == {0, 0.001}
    assert again.normalizers["forces"].rmsd == pytest.approx(1.7)
    assert again.clip_grad_norm == 1

    # a run that was given another value is not one that took it
    saved = tmp_path / "saved.pt"
    state = torch.load(path, weights_only=False)
    state["config"]["optim"]["lr_initial"] = 0.5
    torch.save(state, saved)
    third = make_trainer(config, tmp_path / "third", print_every=100)
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        third.load_checkpoint(str(saved))
    assert "These options have no effect" not in caplog.text

    # the weights alone: the optimizer's options count
    state = torch.load(path, weights_only=False)
    torch.save({k: state[k] for k in ("state_dict", "normalizers", "config")}, path)
    again, said = resumed(lr_initial=0.5, ema_decay=0.5)
    assert "optim." not in said and "normalizer.forces.stdev: 2.5" in said
    assert again.optimizer.param_groups[0]["initial_lr"] == 0.5 and again.ema.decay == 0.5


def test_other_schedules_keep_theirs(data, tmp_path, caplog):
    step_lr = {"scheduler": "StepLR", "max_epochs": 1}
    config = small_config(data, **step_lr, scheduler_params={"step_size": 2, "gamma": 0.5})
    make_trainer(config, tmp_path, is_debug=False, timestamp_id="run").train()
    config = small_config(data, **step_lr, scheduler_params={"step_size": 2, "gamma": 0.9})
    again = make_trainer(config, tmp_path / "again")
    with caplog.at_level(logging.WARNING):
        again.load_checkpoint(str(tmp_path / "checkpoints/run/checkpoint.pt"))
    assert again.scheduler.scheduler.gamma == 0.5
    assert "optim.scheduler_params.gamma: 0.9 (the checkpoint's 0.5 is used)" in caplog.text
