"""A step whose loss or gradient is not finite: named, saved, never taken, on all ranks alike."""

import logging
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch_geometric.data import Batch

from dens_ocp.errors import DensError
from dens_ocp.training import guarded_step, non_finite
from tests.lmdbs import s2ef_records, write_lmdb
from tests.runs import (
    DENS,
    environment,
    logged,
    make_trainer,
    run,
    small_config,
    write_config,
    write_data,
)

HUGE = 3e38
"""A finite label; its error, times the coefficient of the loss, is not finite in float32."""


def config_of(data: Path, **optim) -> dict:
    config = small_config(data, **optim)
    config["loss_functions"][0]["energy"]["coefficient"] = 20
    return config


@pytest.fixture(scope="module")
def spiked(tmp_path_factory) -> Path:
    """12 training records; the energy of sid 5, fid 2 makes the loss infinite."""
    folder = write_data(tmp_path_factory.mktemp("spiked"))
    records = s2ef_records(12)
    records[5].y = HUGE
    write_lmdb(folder / "train" / "data.0000.lmdb", records)
    return folder


def trainer_of(data: Path, run_dir: Path, **optim):
    return make_trainer(config_of(data, **optim), run_dir, is_debug=False, print_every=1)


def state(trainer) -> list[torch.Tensor]:
    """Weights, averaged weights, moments of the optimizer."""
    moments = [each for values in trainer.optimizer.state_dict()["state"].values()
               for each in values.values()]  # fmt: skip
    tensors = [*trainer.model.parameters(), *trainer.ema.shadow_params, *moments]
    return [torch.as_tensor(each).detach().clone() for each in tensors]


def equal(one, other) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


class Watched:
    """The state of a trainer before and after each step."""

    def __init__(self, trainer) -> None:
        self.trainer, self.changed, self.weights = trainer, {}, {}
        self.take = trainer.guard.take
        trainer.guard.take = self

    def __call__(self, *step) -> None:
        before = state(self.trainer)
        count = len(list(self.trainer.model.parameters()))
        try:
            self.take(*step)
        finally:
            after = state(self.trainer)
            self.changed[self.trainer.step] = not equal(before, after)
            self.weights[self.trainer.step] = not equal(before[:count], after[:count])


def test_stop_names_the_record_and_changes_nothing(spiked, tmp_path):
    always = {"dens": {**DENS, "p": 1.0}}
    trainer = trainer_of(spiked, tmp_path, **always)
    watched = Watched(trainer)
    with pytest.raises(DensError) as error:
        trainer.train()
    step = trainer.step
    assert step <= 4 and watched.changed == {**dict.fromkeys(range(1, step), True), step: False}
    message = str(error.value)
    for words in (f"step {step}: the loss is not finite", "sid 5 fid 2", "No weight was changed",
                  "optim.non_finite: skip"):  # fmt: skip
        assert words in message

    (file,) = tmp_path.glob("results/*/non_finite/*")
    assert file.name == f"step_{step}_rank_0.pt" and str(file.parent) in message
    content = torch.load(file, weights_only=True)
    assert any("sid 5 fid 2" in name for name in content["records"])
    assert math.isinf(content["loss"]) and not content["loss_is_finite"]

    # the batch and the checkpoint beside it give the loss again
    (checkpoint,) = tmp_path.glob("checkpoints/*/non_finite_*.pt")
    assert str(checkpoint) in message
    again = trainer_of(spiked, tmp_path / "again", **always)
    again.load_checkpoint(str(checkpoint))
    assert again.step == step  # going on from it leaves the batch out
    again.model.train()
    batch = Batch(**content["batch"])
    assert batch.energy.max() == torch.tensor(HUGE) and torch.isfinite(batch.pos).all()
    assert torch.isinf(again._compute_loss(again._forward(batch), batch))
    seen = content["seen"]
    assert seen["noise_vec"].any() and torch.equal(batch.pos, seen["pos"]), "corrupted alike, once"
    assert torch.equal(seen["pos"], content["batch"]["pos"] + seen["noise_vec"])


def test_skip_goes_on_without_the_batch(spiked, tmp_path, caplog):
    trainer = trainer_of(spiked, tmp_path, non_finite="skip")
    watched = Watched(trainer)
    with caplog.at_level(logging.INFO):
        trainer.train()
    bad = [step for step, changed in watched.changed.items() if not changed]
    assert len(watched.changed) == 8 and len(bad) == 2 and bad[0] <= 4 < bad[1]  # once an epoch
    said = [record.message for record in caplog.records if "skipped on all ranks" in record.message]
    assert len(said) == 2 and all("sid 5 fid 2" in line for line in said)
    losses = [
        record.message
        for record in caplog.records
        if record.message.startswith("step ") and "left" in record.message
    ]
    assert len(losses) == 6 and not any("inf" in line or "nan" in line for line in losses)
    assert all(bool(torch.isfinite(each).all()) for each in state(trainer))
    assert not list(tmp_path.glob("checkpoints/*/non_finite_*"))


def poison_gradient(trainer, value: float, steps=None):
    """The gradient of one parameter becomes ``value`` at these steps (None: at all)."""
    parameter = next(iter(trainer.model.parameters()))
    return parameter.register_hook(
        lambda gradient: (
            gradient.fill_(value) if steps is None or trainer.step in steps else gradient
        )
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("clip", [100, None])
def test_gradient_alone(data, tmp_path, value, clip):
    trainer = trainer_of(data, tmp_path, clip_grad_norm=clip)
    poison_gradient(trainer, value, {3})
    watched = Watched(trainer)
    with pytest.raises(DensError, match="step 3: the gradient is not finite") as error:
        trainer.train()
    assert watched.changed == {1: True, 2: True, 3: False}
    content = torch.load(next(tmp_path.glob("results/*/non_finite/*")), weights_only=True)
    assert content["loss_is_finite"] and not content["gradient_is_finite"]
    assert all(name in str(error.value) for name in content["records"])


def looking_later(trainer):
    """As on a GPU: the optimizer leaves out steps by itself, and the host looks two steps later."""
    trainer.guard.lag = guarded_step.LAG
    return trainer


FUSED = {"optimizer_params": {"fused": True, "weight_decay": 0.1}}


def test_a_guard_that_looks_later_stops_with_the_weights_before(data, tmp_path):
    trainer = looking_later(trainer_of(data, tmp_path, eval_every=100, **FUSED))
    trainer.config["cmd"]["print_every"] = 100
    poison_gradient(trainer, math.nan, {3})
    watched = Watched(trainer)
    with pytest.raises(DensError, match="step 3: the gradient is not finite"):
        trainer.train()
    # the steps after it are computed and not taken
    assert watched.weights == {1: True, 2: True, 3: False, 4: False}  # and 5, which finds it
    (path,) = tmp_path.glob("checkpoints/*/non_finite_step_3.pt")
    content = torch.load(path, weights_only=False)
    assert content["step"] == 3 and content["ema"]["num_updates"] is None
    for saved, each in zip(content["ema"]["shadow_params"], trainer.ema.shadow_params, strict=True):
        assert torch.equal(saved, each) and torch.isfinite(each).all()
    (file,) = tmp_path.glob("results/*/non_finite/*")
    assert file.name == "step_3_rank_0.pt"


@pytest.mark.parametrize("scaled", [False, True])
def test_a_guard_that_looks_later_skips_alike(spiked, tmp_path, scaled):
    """Weights, averages, moments and what is printed are those of a guard that looks at once;
    fairchem's average rounds once less."""
    found = []
    for later in (False, True):
        trainer = trainer_of(
            spiked, tmp_path / str(later), non_finite="skip", eval_every=4, **FUSED
        )
        trainer = with_scaler(trainer, 2.0**10) if scaled else trainer
        trainer.config["cmd"]["print_every"] = 4
        trainer = looking_later(trainer) if later else trainer
        trainer.train(disable_eval_tqdm=True)
        lines = [
            {name: value for name, value in line.items() if name not in ("time", "split")}
            for split in ("train", "val")
            for line in logged(tmp_path / str(later), split=split)
        ]
        averages = trainer.ema.shadow_params
        trainer.ema.shadow_params = []
        found.append((state(trainer), lines, averages))
    assert equal(found[0][0], found[1][0])
    for one, other in zip(found[0][2], found[1][2], strict=True):
        assert torch.allclose(one, other, rtol=1e-6, atol=1e-8)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-6)  # a cosine may be near 0
    assert all(value is not None for line in found[1][1] for value in line.values())


def test_a_run_that_was_not_fused_goes_on_fused(data, tmp_path):
    """Else the optimizer would not look at what the guard tells it."""
    first = trainer_of(data, tmp_path, max_epochs=1)
    first.train(disable_eval_tqdm=True)
    (path,) = tmp_path.glob("checkpoints/*/checkpoint.pt")
    trainer = looking_later(trainer_of(data, tmp_path / "on", max_epochs=2, **FUSED))
    trainer.load_checkpoint(str(path))
    trainer.config["cmd"]["print_every"] = 100
    assert trainer.optimizer.param_groups[0]["fused"] and trainer.step == 4
    poison_gradient(trainer, math.nan, {6})
    watched = Watched(trainer)
    with pytest.raises(DensError, match="step 6: the gradient is not finite"):
        trainer.train(disable_eval_tqdm=True)
    assert watched.weights == {5: True, 6: False, 7: False}  # and 8, which finds it


def test_broken_weights_are_said_and_end_a_run_that_skips(data, tmp_path):
    trainer = trainer_of(data, tmp_path, non_finite="skip", max_epochs=9)
    name, parameter = next(iter(trainer.model.named_parameters()))
    parameter.data.fill_(math.nan)
    with pytest.raises(DensError) as error:
        trainer.train()
    assert trainer.step == non_finite.MOST_IN_A_ROW + 1
    assert f"1 parameters were not finite before the step, the first is {name}" in str(error.value)
    assert "11 steps in a row were skipped" in str(error.value)


class FoundInf(torch.optim.SGD):
    """Looks at the overflow by itself, as fused optimizers do it."""

    _step_supports_amp_scaling = True

    @torch.no_grad()
    def step(self, closure=None):
        assert self.grad_scale is None  # the gradients are unscaled already
        if not self.found_inf:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.sub_(group["lr"] * parameter.grad)


OPTIMIZERS = {
    "plain": {},
    "fused": {"optimizer_params": {"fused": True}},
    "foreach": {"optimizer_params": {"foreach": True}},
    "fused Adam": {"optimizer": "Adam", "optimizer_params": {"fused": True}},
    "found_inf": {"optimizer": "FoundInf", "optimizer_params": {}},
}


@pytest.fixture(params=OPTIMIZERS)
def optimizer(request, monkeypatch) -> dict:
    """Options of ``optim`` for each kind that a scaler treats in a way of its own."""
    monkeypatch.setattr(torch.optim, "FoundInf", FoundInf, raising=False)
    return OPTIMIZERS[request.param]


def with_scaler(trainer, scale: float):
    trainer.scaler = torch.GradScaler("cpu", init_scale=scale)
    return trainer


def test_warm_up_of_the_scaler_is_left_alone(data, tmp_path, optimizer):
    trainer = with_scaler(trainer_of(data, tmp_path, **optimizer), 2.0**16)
    poison_gradient(trainer, math.inf, {1, 2})
    watched = Watched(trainer)
    trainer.train()
    assert trainer.scaler.get_scale() == 2.0**14
    assert not list(tmp_path.glob("results/*/non_finite"))
    weights = {1: False, 2: False, **dict.fromkeys(range(3, 9), True)}
    assert {step: each for step, each in watched.weights.items()} == weights
    assert not hasattr(trainer.optimizer, "found_inf")


def test_a_scaler_that_never_finds_its_scale(data, tmp_path):
    options = {"max_epochs": 20, "optimizer_params": {"fused": True}}
    trainer = with_scaler(trainer_of(data, tmp_path, **options), 2.0**16)
    poison_gradient(trainer, math.inf)
    with pytest.raises(DensError, match="the gradient is not finite"):
        trainer.train()
    assert trainer.step == non_finite.MOST_SCALER_SKIPS + 1


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_infinite_loss_with_a_scaler(spiked, tmp_path, action, optimizer):
    trainer = with_scaler(trainer_of(spiked, tmp_path, non_finite=action, **optimizer), 1.0)
    if action == "stop":
        with pytest.raises(DensError, match="the loss is not finite .*sid 5 fid 2"):
            trainer.train()
    else:
        trainer.train()
        assert trainer.step == 8 and len(list(tmp_path.glob("results/*/non_finite/*"))) == 2
    assert all(bool(torch.isfinite(each).all()) for each in trainer.model.parameters())


def test_a_loss_that_overflows_by_its_scale_alone_is_the_scalers(data, tmp_path):
    trainer = with_scaler(trainer_of(data, tmp_path, max_epochs=12), 2.0**126)
    watched = Watched(trainer)
    trainer.train()
    assert trainer.scaler.get_scale() < 2.0**120
    assert trainer.step == 48 and not watched.weights[1] and watched.weights[48]


def test_the_saved_loss_is_not_the_scaled_one(data, tmp_path):
    trainer = with_scaler(trainer_of(data, tmp_path), 2.0**10)
    losses, take = [], trainer.guard.take

    def broken(loss, *others):
        losses.append(loss.item())
        if trainer.step == 3:  # after the scaler has looked
            unscale = trainer.scaler.unscale_
            trainer.scaler.unscale_ = lambda optimizer: (
                unscale(optimizer),
                next(iter(trainer.model.parameters())).grad.fill_(math.nan),
            )
        take(loss, *others)

    trainer.guard.take = broken
    with pytest.raises(DensError, match="step 3: the gradient is not finite"):
        trainer.train()
    content = torch.load(next(tmp_path.glob("results/*/non_finite/*")), weights_only=True)
    assert content["loss"] == pytest.approx(losses[-1], rel=1e-6)


def test_unknown_action(data, tmp_path):
    with pytest.raises(DensError, match=r"optim.non_finite: 'skp' .*did you mean 'skip'"):
        trainer_of(data, tmp_path, non_finite="skp")


# ---- two ranks ---------------------------------------------------------------------------------


TWO_RANKS = """
import sys, torch
from dens_ocp.training import guarded_step
from dens_ocp.launch.rank_process import run_rank
from fairchem.core.common import distutils
from fairchem.core.common.utils import build_config
from fairchem.core.common.flags import flags

args, overrides = flags.get_parser().parse_known_args(
    ["--mode", "train", "--config-yml", sys.argv[1], "--cpu", "--num-gpus", "2",
     "--run-dir", sys.argv[2], "--timestamp-id", "run"])
taken = []
take = guarded_step.GuardedStep.take
def watched(self, *step):
    model = self.trainer.model
    first = next(iter(model.parameters()))
    before = first.detach().clone()
    try:
        take(self, *step)
    finally:
        taken.append(not torch.equal(before, first))
        torch.save(
            {"taken": taken, "parameters": [p.detach().clone() for p in model.parameters()]},
            f"{sys.argv[2]}/rank{distutils.get_rank()}.pt",
        )
guarded_step.GuardedStep.take = watched
run_rank(build_config(args, overrides))
"""


@pytest.mark.parametrize("action", ["stop", "skip"])
def test_two_ranks_decide_together(spiked, tmp_path, action):
    config = config_of(spiked, batch_size=2, max_epochs=2, non_finite=action)
    path = write_config(tmp_path / "c.yml", config)
    (tmp_path / "ranks.py").write_text(TWO_RANKS)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
         str(tmp_path / "ranks.py"), str(path), str(tmp_path)],
        env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    zero, one = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert zero["taken"] == one["taken"]
    assert equal(zero["parameters"], one["parameters"])
    assert all(bool(torch.isfinite(each).all()) for each in zero["parameters"])
    files = sorted(tmp_path.glob("results/run/non_finite/*"))
    if action == "stop":
        assert done.returncode != 0 and zero["taken"].count(False) == 1
        assert "error: step " in done.stderr and "sid 5 fid 2" in done.stderr
        assert len(list(tmp_path.glob("checkpoints/run/non_finite_*.pt"))) == 1
    else:
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(zero["taken"]) == 6 and zero["taken"].count(False) == 2
        assert (done.stdout + done.stderr).count("skipped on all ranks") == 2
    # only the rank that had the record writes
    assert len(files) == zero["taken"].count(False)
    for file in files:
        content = torch.load(file, weights_only=True)
        assert file.name.endswith(f"_rank_{content['rank']}.pt")
        assert any("sid 5 fid 2" in name for name in content["records"])


def test_exit_code_and_message_of_the_command_line(spiked, tmp_path):
    config = write_config(tmp_path / "c.yml", config_of(spiked))
    done = run("train", config, cwd=tmp_path, check=False)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: step ") and "sid 5 fid 2" in last


def test_what_fairchem_does(data, tmp_path):
    """The reason for all this: one such step and all weights are NaN."""
    trainer = trainer_of(data, tmp_path)
    poison_gradient(trainer, math.nan, {3})
    theirs = (each for each in type(trainer).__mro__ if each.__module__.startswith("fairchem."))
    backward = next(theirs)._backward
    trainer.guard.take = lambda loss, *others: backward(trainer, loss)
    trainer.train()
    assert not any(bool(torch.isfinite(each).any()) for each in trainer.model.parameters())
