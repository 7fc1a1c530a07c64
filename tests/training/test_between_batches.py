"""A signal while a training run relaxes or predicts: it stops between two batches, and the resumed
run does what was broken off."""

import os
import signal
from collections import Counter

import numpy as np
import pytest
import torch

from dens_ocp.launch import signals
from tests.ranks import on_ranks
from tests.runs import make_trainer, small_config
from tests.training.states import checkpoint, difference


@pytest.fixture(autouse=True)
def handlers():
    yield
    signals.stop_listening()


def config_of(data, tmp_path, **optim):
    config = small_config(data, eval_every=2, eval_batch_size=1, max_epochs=1, **optim)
    config["dataset"]["test"] = {"src": str(data / "val")}
    config["dataset"]["relax"] = {"src": str(data / "relax")}
    config["task"] = {"eval_relaxations": True, "relaxation_steps": 2,
                      "relax_opt": {"traj_dir": str(tmp_path / "trajectories")}}  # fmt: skip
    return config


PLATEAU = {"scheduler": "ReduceLROnPlateau",
           "scheduler_params": {"factor": 0.5, "patience": 0, "threshold": 1.0}}  # fmt: skip


def run_of(config, run_dir, name, number=None, during="", batch=2, rank=0):
    """Train as the run ``name``, with ``number`` sent to ``rank`` before ``batch`` of the
    predictions or relaxations; returns the trainer and the batches done of each."""
    trainer = make_trainer(config, run_dir, is_debug=False, timestamp_id=name, print_every=1)
    path = run_dir / "checkpoints" / name / "checkpoint.pt"
    if path.is_file():
        trainer.load_checkpoint(str(path))
    done: Counter = Counter()
    forward, relax = trainer._forward, trainer.run_relaxations
    mine = int(os.environ.get("RANK", "0")) == rank

    def counting(batch_of_it):
        kind = "predictions" if trainer.questions_left else ""
        if kind and kind == during and mine and done[kind] + 1 == batch:
            os.kill(os.getpid(), number)
        out = forward(batch_of_it)
        done[kind] += 1
        return out

    def relaxing():
        collate = trainer.relax_loader.collate_fn

        def before(records):
            if during == "relaxations" and mine and done["relaxations"] + 1 == batch:
                os.kill(os.getpid(), number)
            done["relaxations"] += 1
            return collate(records)

        trainer.relax_loader.collate_fn = before
        try:
            return relax()
        finally:
            trainer.relax_loader.collate_fn = collate

    trainer._forward, trainer.run_relaxations = counting, relaxing
    trainer.train(disable_eval_tqdm=True)
    return trainer, done


@pytest.mark.parametrize("optim", [{}, PLATEAU], ids=["cosine", "plateau"])
@pytest.mark.parametrize("during", ["predictions", "relaxations"])
def test_one_process(data, tmp_path, during, optim):
    config = config_of(data, tmp_path, **optim)
    whole, done = run_of(config, tmp_path, "whole")
    assert done["relaxations"] == 2 * 3 and whole.step == 4
    config["task"]["relax_opt"]["traj_dir"] = str(tmp_path / "others")
    stopped, done = run_of(config, tmp_path, "parts", signal.SIGUSR1, during)
    assert stopped.step == 2
    assert done[during] <= 2, "the batch at work is finished, no other is begun"
    results = tmp_path / "results/parts"
    assert during == "relaxations" or not list(results.glob("*predictions*"))
    signals.stop_listening()
    resumed, _ = run_of(config, tmp_path, "parts")
    assert resumed.step == 4
    found = difference(checkpoint(tmp_path, "whole"), checkpoint(tmp_path, "parts"))
    assert found is None, found
    (one,), (other,) = ((tmp_path / "results" / name).glob("*predictions*")
                        for name in ("whole", "parts"))  # fmt: skip
    assert np.array_equal(np.load(one)["energy"], np.load(other)["energy"])


def on_rank(config, run_dir, during):
    trainer, done = run_of(config, run_dir, "run", signal.SIGTERM, during, batch=1, rank=1)
    return trainer.step, done[during], trainer.checkpoints.saved_step


@pytest.mark.slow
@pytest.mark.parametrize("during", ["predictions", "relaxations"])
def test_one_of_two_ranks_has_the_signal(data, tmp_path, during):
    """Rank 0 has two systems to relax, rank 1 one; neither waits for the other for ever."""
    config = config_of(data, tmp_path, batch_size=2)
    (step, zero, saved), (other, one, _) = on_ranks(2, on_rank, config, tmp_path, during)
    assert step == other == saved == 2
    total = {"predictions": 3, "relaxations": 2}[during]
    assert zero <= total and one <= total
    state = torch.load(tmp_path / "checkpoints/run/checkpoint.pt", weights_only=False)
    resume = state["resume"]
    assert state["step"] == 2
    assert (resume["validated_step"] if during == "predictions" else resume["relaxed_step"]) != 2
