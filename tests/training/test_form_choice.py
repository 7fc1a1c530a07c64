"""``model.fast: auto`` in training, where it is settled by measurement (on GPUs; here the CPU
stands for one)."""

import logging

import pytest
import torch

from dens_ocp.models.fast import choice
from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.operations import matrix_products
from dens_ocp.training import form_choice
from tests.conftest import SMALL_EQUIFORMER
from tests.lmdbs import write_s2ef
from tests.ranks import on_ranks
from tests.runs import make_trainer, small_config


def clock_of(monkeypatch, fast, stock):
    """``choice.seconds`` runs each form once, and says that they took so long."""

    def seconds(model, run, device):
        for form in (False, True):
            model.take_form(form)
            run()
        return fast, stock

    monkeypatch.setattr(choice, "TIMED_ON", {"cpu"})
    monkeypatch.setattr(choice, "seconds", seconds)


def trained(folder, name, epochs=1, fast="auto", load=None):
    if not (folder / "train").exists():
        write_s2ef(folder / "train", 12, seed=0)
        write_s2ef(folder / "val", 6, seed=1)
    config = small_config(folder, {**SMALL_EQUIFORMER, "fast": fast}, max_epochs=epochs)
    trainer = make_trainer(config, folder, is_debug=False, timestamp_id=name)
    if load is not None:
        trainer.load_checkpoint(str(load))
    trainer.train(disable_eval_tqdm=True)
    return trainer


def form(trainer):
    """Whether it trains in the fast form, by its modules."""
    fast = [isinstance(module, FastForm) for module in trainer._unwrapped_model.modules()]
    assert trainer.checkpoints.form["fast"] == any(fast)
    return any(fast)


def assert_alike(one, other):
    """Not to the last bit: a product of MKL depends on where in memory its matrices lie."""
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("faster", [True, False], ids=["fast", "stock"])
def test_the_faster_form_trains_as_if_it_were_named(faster, tmp_path, monkeypatch, caplog):
    clock_of(monkeypatch, *((1.0, 2.0) if faster else (2.0, 1.0)))
    caplog.set_level(logging.INFO)
    auto = trained(tmp_path, "auto")
    assert caplog.text.count("model.fast: auto") == 1
    assert form(auto) == faster
    assert_alike(auto, trained(tmp_path, "named", fast=faster))


def test_a_resumed_run_keeps_the_form(tmp_path, monkeypatch, caplog):
    clock_of(monkeypatch, 2.0, 1.0)
    whole = trained(tmp_path, "whole", epochs=2)
    half = tmp_path / "checkpoints" / "whole" / "checkpoint.4.pt"
    kept = torch.load(half, weights_only=False)["resume"]["form"]
    assert kept["device"] == "cpu" and kept["fast"] is False
    clock_of(monkeypatch, 1.0, 2.0)  # measured anew it would be the other one
    caplog.set_level(logging.INFO)
    caplog.clear()
    resumed = trained(tmp_path, "resumed", epochs=2, load=half)
    assert "model.fast: auto" not in caplog.text
    assert form(resumed) is False
    assert_alike(whole, resumed)
    newest = tmp_path / "checkpoints" / "resumed" / "checkpoint.pt"
    assert torch.load(newest, weights_only=False)["resume"]["form"] == kept


def test_another_device_is_measured_again(tmp_path, monkeypatch):
    clock_of(monkeypatch, 2.0, 1.0)
    trained(tmp_path, "whole", epochs=2)
    half = tmp_path / "checkpoints" / "whole" / "checkpoint.4.pt"
    state = torch.load(half, weights_only=False)
    state["resume"]["form"]["device"] = "another GPU"
    torch.save(state, half)
    clock_of(monkeypatch, 1.0, 2.0)
    resumed = trained(tmp_path, "resumed", epochs=2, load=half)
    assert resumed.checkpoints.form["device"] == "cpu" and form(resumed) is True


def test_a_resumed_run_multiplies_as_before(tmp_path, monkeypatch):
    monkeypatch.setattr(matrix_products, "_taken", None)
    monkeypatch.setattr(matrix_products, "_is_faster_here", lambda: False)
    trained(tmp_path, "whole", epochs=2)
    half = tmp_path / "checkpoints" / "whole" / "checkpoint.4.pt"
    assert torch.load(half, weights_only=False)["resume"]["form"]["onednn"] is False
    monkeypatch.setattr(matrix_products, "_taken", None)
    monkeypatch.setattr(matrix_products, "_is_faster_here", lambda: True)
    trained(tmp_path, "resumed", epochs=2, load=half)
    assert matrix_products.takes_onednn() is False
    trained(tmp_path, "another", epochs=1)  # in this process the choice is made
    assert matrix_products.takes_onednn() is False


def _settled(folder):
    """On a rank whose own seconds say the opposite of the sum."""
    from fairchem.core.common import distutils

    patch = pytest.MonkeyPatch()
    clock_of(patch, *((3.0, 1.0) if distutils.get_rank() == 0 else (1.0, 9.0)))
    config = small_config(folder, {**SMALL_EQUIFORMER, "fast": "auto"})
    trainer = make_trainer(config, folder)
    trainer.model.train()
    form_choice.settle(trainer, next(iter(trainer.train_loader)))
    return form(trainer)


def test_ranks_take_the_same_form(tmp_path):
    write_s2ef(tmp_path / "train", 12, seed=0)
    write_s2ef(tmp_path / "val", 6, seed=1)
    assert on_ranks(2, _settled, tmp_path, seconds=300) == [True, True]
