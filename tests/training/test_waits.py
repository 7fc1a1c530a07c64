"""A training step waits for the device once for its metrics, and for nothing in loss and errors."""

import copy
import sys

import pytest
import torch
from fairchem.core.trainers import OCPTrainer
from torch.utils._python_dispatch import TorchDispatchMode

from dens_ocp.dens.step_plan import attach
from dens_ocp.launch import processor
from dens_ocp.training import metric_errors
from dens_ocp.training.fairchem_trainer import HostTrainer
from dens_ocp.training.metric_errors import Sums
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN
from tests.lmdbs import s2ef_records, write_lmdb
from tests.runs import make_trainer, small_config, write_data

EVERYTHING = {
    "energy": ["mae", "mse", "per_atom_mae", "per_atom_mse", "rmse", "energy_within_threshold"],
    "forces": [
        "forcesx_mae", "forcesy_mae", "forcesz_mae", "forcesx_mse", "forcesy_mse", "forcesz_mse",
        "mae", "mse", "rmse", "cosine_similarity", "magnitude_error",
    ],
    "misc": ["energy_forces_within_threshold"],
}  # fmt: skip
WAITS = (
    torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero, torch.ops.aten.masked_select,
    torch.ops.aten.is_nonzero, torch.ops.aten.equal, torch.ops.aten._unique2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


class NoWaits(TorchDispatchMode):
    """Fails on operators that on a GPU would make the host wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        masks = func.overloadpacket is torch.ops.aten.index and any(
            each is not None and each.dtype == torch.bool for each in args[1]
        )
        assert func.overloadpacket not in WAITS and not masks, f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def trainer_of(data, tmp_path, metrics=EVERYTHING, model=SMALL_EQUIFORMER, **options):
    config = small_config(data, model=model, dens={"p": 0.5, "r": 0.7, "sigma": 0.1})
    config["evaluation_metrics"]["metrics"] = metrics
    config["outputs"]["forces"] |= options
    return make_trainer(config, tmp_path)


def step(trainer, number=1):
    """Batch and outputs of a training step that corrupts some structures and not all."""
    batch = next(iter(trainer.train_loader))
    trainer.model.train()
    for trainer.step in range(number, number + 100):
        touched = trainer._corruption_of(batch).structure_mask
        if touched.any() and not touched.all():
            return batch, trainer._forward(batch)
    raise AssertionError("no such step")


@pytest.mark.parametrize("free_only", [True, False])
@pytest.mark.parametrize("model", [SMALL_EQUIFORMER, SMALL_ESCN], ids=["eqv2", "escn"])
def test_loss_and_errors_need_no_value_of_a_tensor(data, tmp_path, model, free_only):
    """On the meta device tensors have shapes and no values: whoever asks for one fails."""
    trainer = trainer_of(
        data, tmp_path, model=model, train_on_free_atoms=free_only, eval_on_free_atoms=free_only
    )
    batch, outputs = step(trainer)
    meta = {name: value.to("meta") for name, value in outputs.items()}
    batch = batch.to("meta")
    plan = batch.step_plan
    rows = [plan.loss_rows, plan.force_atoms, *vars(plan.metric_rows).values(),
            *plan.dens_rows.values(), *vars(plan.corruption).values()]  # fmt: skip
    assert all(each is None or each.is_meta for each in rows), "the plan travels with the batch"
    for normalizer in trainer.normalizers.values():
        normalizer.to("meta")
    trainer._model_outputs = meta
    terms = trainer.loss_terms(meta, batch)
    loss = trainer.whole_loss(terms)
    errors = trainer.step_errors(meta, batch, terms, loss)
    assert loss.is_meta
    assert {"loss_noise", "dens_noise_mae", "forces_mae", "energy_mae"} <= set(errors)
    with pytest.raises(RuntimeError, match="meta"):
        OCPTrainer._compute_metrics(trainer, meta, batch, trainer.evaluator, {})


def test_metrics_wait_once(data, tmp_path, monkeypatch):
    trainer = trainer_of(data, tmp_path)
    batch, outputs = step(trainer)
    waits = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda each: waits.append(1) or tolist(each))
    with NoWaits():
        terms = trainer.loss_terms(outputs, batch)
        errors = trainer.step_errors(outputs, batch, terms, trainer.whole_loss(terms))
        for _ in range(3):
            trainer.sums.add(errors)
        assert waits == []
        metrics = trainer.sums.fetch()
    assert waits == [1] and "dens_noise_mae" in metrics and "forces_mae" in metrics


@pytest.mark.parametrize("model", [SMALL_EQUIFORMER, SMALL_ESCN], ids=["eqv2", "escn"])
def test_steps_of_a_run_wait_for_nothing_between_two_lines(data, tmp_path, monkeypatch, model):
    """From the outputs of the model to the optimizer's step, average of weights and sums included,
    as on a GPU (``lag``); the device is asked where a line is printed, and after a validation."""
    config = small_config(data, model=model, ema_decay=0.9, clip_grad_norm=1, eval_every=8)
    config["optim"]["optimizer_params"] = {"fused": True}
    trainer = make_trainer(config, tmp_path, print_every=4)
    fetched, fetch = [], Sums.fetch
    monkeypatch.setattr(Sums, "fetch", lambda each: fetched.append(trainer.step) or fetch(each))

    def watched(function):
        def call(*args, **options):
            with NoWaits():
                return function(*args, **options)

        return call

    for owner, names in (
        (trainer, ("loss_terms", "whole_loss", "step_errors")), (trainer.guard, ("take",)),
    ):  # fmt: skip
        for name in names:
            monkeypatch.setattr(owner, name, watched(getattr(owner, name)))
    with pytest.raises(AssertionError, match="waits for the device"):
        trainer.train(disable_eval_tqdm=True)
        pytest.fail("a plain optimizer's guard asks at each step")
    trainer.step, trainer.guard.lag = 0, 2
    trainer.val_loader = None
    for name, module in list(sys.modules.items()):  # and no name is exchanged while a step runs
        if name.startswith("dens_ocp.") and hasattr(module, "swapped"):
            monkeypatch.setattr(module, "swapped", None)
    fetched.clear()
    trainer.train(disable_eval_tqdm=True)
    assert trainer.step == 8 and fetched == [4, 8]


def test_the_check_for_waits_can_fail():
    numbers = torch.arange(3.0)
    for wait in (
        lambda: numbers.sum().item(),
        lambda: numbers[numbers > 1],
        lambda: bool((numbers > 1).any()),
        lambda: torch.nonzero(numbers),
        lambda: torch.zeros(4).view(numbers[2].long() * 2),
    ):
        with pytest.raises(AssertionError, match="waits"), NoWaits():
            wait()


def test_corruption_waits_for_nothing(data, tmp_path):
    """On the CPU, before the batch is moved. Finding the rows of loss and metrics is a nonzero
    each, so that is done there as well; afterwards only the heads look for their edges."""
    trainer = trainer_of(data, tmp_path)
    batch = next(iter(trainer.train_loader))
    trainer.step = 1
    with NoWaits():
        trainer._corruption_of(batch)


@pytest.mark.parametrize("corrupted", [True, False])
def test_a_batch_leaves_the_cpu_with_its_corruption_and_rows(
    data, tmp_path, corrupted, monkeypatch
):
    trainer = trainer_of(data, tmp_path)
    trainer.dens = trainer.dens.model_copy(update={"p": 1.0 if corrupted else 0.0})
    trainer.model.train()
    batch, seen = next(iter(trainer.train_loader)), []
    to = type(batch).to

    def watched(each, *arguments, **options):
        seen.append((each.step_plan.loss_rows, each.get("noise_mask") is not None))
        return to(each, *arguments, **options)

    monkeypatch.setattr(type(batch), "to", watched)
    trainer.step = 1
    trainer._forward(batch)
    assert seen[0][0] is not None and seen[0][1] == trainer.dens.active


# ---- the same numbers as fairchem's --------------------------------------------------------------


def near(outputs, batch, far=5.0):
    """Predictions are targets, but for the forces of structure 1 and the energy of 2."""
    forces = batch.forces.clone() / 1.7
    forces[batch.batch == 1] += 1.0
    energy = (batch.energy.view(-1, 1) + 0.3) / 1.4
    energy[2] += far
    return {**outputs, "forces": forces, "energy": energy}


@pytest.mark.parametrize("close", [True, False])
def test_metrics_equal_fairchems(data, tmp_path, close):
    trainer = trainer_of(data, tmp_path)
    trainer.model.eval()
    batch = next(iter(trainer.val_loader))
    with torch.no_grad():
        outputs = trainer._forward(batch)
    if close:
        outputs = near(outputs, batch)
    evaluator = copy.copy(trainer.evaluator)
    evaluator.target_metrics = {
        # fairchem's per_atom metrics of energies only
        **EVERYTHING, "energy": EVERYTHING["energy"],
    }  # fmt: skip
    expected = OCPTrainer._compute_metrics(trainer, outputs, batch, evaluator, {})
    found = trainer._compute_metrics(outputs, batch, evaluator, {})
    assert list(found) == list(expected)
    for name in expected:
        assert found[name]["numel"] == expected[name]["numel"], name
        assert found[name]["total"] == pytest.approx(expected[name]["total"], rel=1e-6), name
    assert found["energy_forces_within_threshold"]["total"] == (1 if close else 0)
    # and a second batch is added to the first
    again = trainer._compute_metrics(outputs, batch, evaluator, found)
    assert again["forces_mae"]["numel"] == 2 * expected["forces_mae"]["numel"]


def test_an_unknown_metric_is_fairchems_own(data, tmp_path, monkeypatch):
    trainer = trainer_of(data, tmp_path, metrics={"forces": ["mae", "cosine_similarity"]})
    trainer.model.eval()
    batch = next(iter(trainer.val_loader))
    with torch.no_grad():
        outputs = trainer._forward(batch)
    expected = trainer._compute_metrics(outputs, batch, trainer.evaluator, {})
    monkeypatch.setattr(metric_errors, "_ERRORS", {})
    found = trainer._compute_metrics(outputs, batch, trainer.evaluator, {})
    for name in expected:
        assert found[name]["metric"] == pytest.approx(expected[name]["metric"], rel=1e-6)


def test_structures_without_free_atoms_beside_others(tmp_path):
    """fairchem takes the maximum over no forces and fails."""
    records = s2ef_records(3)
    records[1].fixed = torch.ones_like(records[1].fixed)
    write_lmdb(tmp_path / "train" / "data.lmdb", records)
    config = small_config(tmp_path, load_balancing=None)
    del config["dataset"]["val"]
    config["evaluation_metrics"]["metrics"] = EVERYTHING
    trainer = make_trainer(config, tmp_path / "run")
    trainer.model.eval()
    batch = next(iter(trainer.train_loader))
    with torch.no_grad():
        outputs = near(trainer._forward(batch), batch, far=0.0)
    metrics = trainer._compute_metrics(outputs, batch, trainer.evaluator, {})
    wrong = bool((batch.fixed[batch.batch == 1] == 0).any())  # structure 1, if it has free atoms
    assert metrics["energy_forces_within_threshold"]["total"] == 3 - wrong
    assert metrics["energy_forces_within_threshold"]["numel"] == 3
    assert metrics["forces_mae"]["numel"] == 3 * int((batch.fixed == 0).sum())
    with pytest.raises((IndexError, RuntimeError)):
        OCPTrainer._compute_metrics(trainer, outputs, batch, trainer.evaluator, {})


def test_metrics_of_all_atoms(data, tmp_path):
    trainer = trainer_of(data, tmp_path, eval_on_free_atoms=False)
    trainer.model.eval()
    batch = next(iter(trainer.val_loader))
    with torch.no_grad():
        outputs = near(trainer._forward(batch), batch)
    found = HostTrainer._compute_metrics(trainer, outputs, batch, trainer.evaluator, {})
    assert found["forces_mae"]["numel"] == 3 * batch.pos.shape[0]
    assert found["forces_mae"]["total"] == pytest.approx(3 * 1.7 * int((batch.batch == 1).sum()))
    assert found["energy_forces_within_threshold"]["total"] == 1


class Device:
    """Of a GPU that is not there: its kind, and where tensors without values are."""

    type = "cuda"


def test_a_batch_moves_from_pinned_memory_without_a_wait(data, tmp_path, monkeypatch):
    """Every tensor that travels, those of the plan too, is pinned first and copied without a wait:
    a copy from other memory, or a blocking one, lets the host wait for the step before."""
    trainer = trainer_of(data, tmp_path)
    trainer.model.train()
    trainer.step = 1
    batch = next(iter(trainer.train_loader))
    attach(batch, trainer.step_plan(batch))
    pinned, copied = [], []

    def pin_memory(tensor):
        pinned.append(tensor.data_ptr())
        return tensor

    def to(tensor, device=None, *, non_blocking=False, **_):
        assert isinstance(device, Device) and non_blocking
        copied.append(tensor.data_ptr())
        return tensor

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", to)
    processor.on_device(batch, Device())
    monkeypatch.undo()
    assert sorted(pinned) == sorted(copied)
    plan = batch.step_plan
    for tensor in (batch.pos, batch.noise_vec, plan.loss_rows, plan.metric_rows.free,
                   plan.corruption.noise_mask, *plan.dens_rows.values()):  # fmt: skip
        assert tensor.data_ptr() in copied


def test_order_of_events_in_a_step(data, tmp_path, monkeypatch):
    """All that is decided on the CPU is decided before the batch leaves it, and while the device
    may still work on the step before: nothing between two batches asks the device."""
    events = []

    def noted(owner, name, event):
        plain = getattr(owner, name)

        def call(*args, **options):
            events.append(event)
            return plain(*args, **options)

        monkeypatch.setattr(owner, name, call)

    trainer = trainer_of(data, tmp_path)
    trainer.config["optim"]["max_epochs"] = 1
    noted(trainer, "step_plan", "corruption")
    noted(processor, "on_device", "copy")
    noted(trainer._unwrapped_model, "denoise", "forward")
    noted(trainer, "loss_terms", "loss")
    noted(trainer.guard, "_gradient", "backward")
    noted(trainer.optimizer, "step", "optimizer")
    monkeypatch.setattr(trainer, "val_loader", None)
    trainer.train(disable_eval_tqdm=True)
    step = ["corruption", "copy", "forward", "loss", "backward", "optimizer"]
    assert events == step * len(trainer.train_loader)
