"""The trainer: steps, metrics, set-up; in this process, on real LMDBs."""

import copy

import pytest
import torch

from dens_ocp.dens.step_plan import StepPlan, read
from dens_ocp.errors import DensError
from dens_ocp.models.parameter_names import translated
from dens_ocp.settings import run
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model
from tests.lmdbs import s2ef_records, write_lmdb
from tests.runs import DENS, make_trainer, small_config, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def first_batch(trainer):
    return next(iter(trainer.train_loader))


def loss_of_a_step(trainer, batch, step=1):
    trainer.step = step
    trainer.model.train()
    torch.manual_seed(0)
    outputs = trainer._forward(batch)
    return outputs, trainer._compute_loss(outputs, batch)


def stock_config(data):
    """fairchem's hydra EquiformerV2 with the same options, and its own trainer."""
    config = small_config(data, dens=None)
    backbone = {key: value for key, value in SMALL_EQUIFORMER.items() if key != "name"}
    config["model"] = {
        "name": "hydra",
        "pass_through_head_outputs": True,
        "backbone": {"model": "equiformer_v2_backbone", **backbone},
        "heads": {
            "energy": {"module": "equiformerV2_scalar_head"},
            "forces": {"module": "equiformerV2_vector_head"},
        },
    }
    return config


def test_at_p_zero_a_step_equals_stock_fairchem(data, tmp_path):
    """With SGD, as Adam's first step blows the rounding of tiny gradients up to full steps."""
    sgd = {"optimizer": "SGD", "optimizer_params": {}, "lr_initial": 0.01}
    ours = make_trainer(small_config(data, dens={"p": 0}, **sgd), tmp_path)
    stock_settings = stock_config(data)
    stock_settings["optim"].update(sgd)
    stock = make_trainer(stock_settings, tmp_path, name="equiformerv2_forces")
    weights = copy.deepcopy(stock._unwrapped_model.state_dict())
    ours._unwrapped_model.load_state_dict(weights, strict=False)
    _, our_loss = loss_of_a_step(ours, first_batch(ours))
    _, stock_loss = loss_of_a_step(stock, first_batch(stock))
    assert our_loss.item() == pytest.approx(stock_loss.item(), rel=1e-6)
    ours.guard.take(our_loss, None, None, {})
    stock._backward(stock_loss)
    after = dict(ours._unwrapped_model.named_parameters())
    moved = 0
    for name, parameter in stock._unwrapped_model.named_parameters():
        assert torch.allclose(after[translated(name)], parameter, atol=1e-6), name
        moved += int(not torch.equal(weights[name], parameter))
    assert moved > 50


@pytest.mark.parametrize(
    "model", [SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN], ids=["eqv2", "escn", "esen"]
)
def test_dens_step_corrupts_learns_and_measures(data, tmp_path, model):
    dens = {"p": 1, "r": 0.5, "sigma": 0.1}
    trainer = make_trainer(small_config(data, model=model, dens=dens), tmp_path)
    batch = first_batch(trainer)
    before = batch.pos.clone()
    outputs, loss = loss_of_a_step(trainer, batch)
    assert set(outputs) == {"energy", "forces", "noise"}
    assert torch.equal(batch.pos != before, batch.noise_vec != 0)
    assert not batch.noise_mask[batch.fixed == 1].any() and batch.noise_mask.any()
    metrics = trainer._compute_metrics(outputs, batch, trainer.evaluator, {})
    assert "noise" in outputs, "the caller's outputs were changed"
    mask = batch.noise_mask
    noise_error = (outputs["noise"] * 0.1 - batch.noise_vec).abs()[mask].mean().item()
    assert metrics["dens_noise_mae"]["metric"] == pytest.approx(noise_error, rel=1e-5)
    free = batch.fixed == 0
    force_error = (outputs["forces"] * 1.7 - batch.forces).abs()[free & ~mask & structures(batch)]
    assert metrics["dens_forces_mae"]["metric"] == pytest.approx(
        force_error.mean().item(), rel=1e-5
    )
    share = mask[free].float().mean().item()
    assert metrics["dens_corrupted_atoms"]["metric"] == pytest.approx(share)
    trainer.guard.take(loss, batch, batch, {})
    heads = dict(trainer._unwrapped_model.noise_head.named_parameters())
    assert any(p.grad.abs().sum() > 0 for p in heads.values())


def structures(batch):
    return read(batch).structure_mask[batch.batch]


def test_metrics_of_clean_structures_are_fairchems_of_a_clean_batch(data, tmp_path):
    trainer = make_trainer(small_config(data, dens={"p": 0.5, "r": 1}), tmp_path)
    batch = first_batch(trainer)
    for step in range(1, 30):
        mixed = batch.clone()
        outputs, _ = loss_of_a_step(trainer, mixed, step)
        dens = [i for i in range(3) if mixed.noise_mask[mixed.batch == i].any()]
        if len(dens) == 1:
            break
    metrics = trainer._compute_metrics(outputs, mixed, trainer.evaluator, {})
    clean = torch.tensor([i for i in range(3) if i not in dens])
    atoms = torch.isin(mixed.batch, clean) & (mixed.fixed == 0)
    forces = (outputs["forces"] * 1.7 - mixed.forces)[atoms].abs().mean().item()
    assert metrics["forces_mae"]["metric"] == pytest.approx(forces, rel=1e-5)
    energy = (outputs["energy"][:, 0] * 1.4 - 0.3 - mixed.energy).abs()
    assert metrics["energy_mae"]["metric"] == pytest.approx(energy[clean].mean().item(), rel=1e-5)
    assert metrics["dens_energy_mae"]["metric"] == pytest.approx(
        energy[dens].mean().item(), rel=1e-5
    )


@pytest.mark.parametrize("p", [0, 1])
@pytest.mark.parametrize("fixed", ["all", "none"])
def test_batches_without_free_atoms_or_with_all_corrupted(tmp_path, p, fixed):
    records = s2ef_records(3)
    for record in records:
        record.fixed = torch.ones_like(record.fixed) * int(fixed == "all")
    write_lmdb(tmp_path / "train" / "data.lmdb", records)
    write_lmdb(tmp_path / "val" / "data.lmdb", records)
    config = small_config(tmp_path, dens={"p": p, "r": 1}, load_balancing=None)
    trainer = make_trainer(config, tmp_path / "run")
    batch = first_batch(trainer)
    outputs, loss = loss_of_a_step(trainer, batch)
    assert loss.isfinite()
    metrics = trainer._compute_metrics(outputs, batch, trainer.evaluator, {})
    trainer.guard.take(loss, batch, batch, {})
    assert all(value["metric"] == value["metric"] for value in metrics.values())
    assert trainer.validate(disable_tqdm=True)["energy_mae"]["metric"] >= 0


def test_single_atoms(tmp_path):
    records = s2ef_records(3)
    for record in records:
        for name in ("pos", "force", "atomic_numbers", "fixed", "tags"):
            record[name] = record[name][-1:]
        record.natoms = 1
    write_lmdb(tmp_path / "train" / "data.lmdb", records)
    config = small_config(tmp_path, dens={"p": 1, "r": 1}, load_balancing=None)
    config["dataset"].pop("val")
    config["model"]["max_radius"] = 12.0  # an atom sees its images
    trainer = make_trainer(config, tmp_path / "run")
    batch = first_batch(trainer)
    outputs, loss = loss_of_a_step(trainer, batch)
    assert loss.isfinite() and batch.noise_mask.all()
    metrics = trainer._compute_metrics(outputs, batch, trainer.evaluator, {})
    assert metrics["dens_noise_mae"]["numel"] == 9 and metrics["dens_energy_mae"]["numel"] == 3
    assert "forces_mae" not in metrics and "dens_forces_mae" not in metrics  # all are noisy


def test_draws_differ_by_step_and_repeat_after_a_restart(data, tmp_path):
    def noise(step):
        trainer = make_trainer(small_config(data, dens={"p": 1, "r": 1}), tmp_path)
        batch = first_batch(trainer)
        loss_of_a_step(trainer, batch, step)
        return batch.noise_vec

    assert torch.equal(noise(7), noise(7))
    assert not torch.equal(noise(7), noise(8))


def test_validation_sees_neither_forces_nor_noise(data, tmp_path):
    trainer = make_trainer(small_config(data, dens={"p": 1, "r": 1}), tmp_path)
    seen = []
    trainer._unwrapped_model.noise_head.register_forward_hook(lambda *_: seen.append("noise"))
    trainer._unwrapped_model.force_embedding.register_forward_hook(lambda *_: seen.append("f"))
    metrics = trainer.validate(disable_tqdm=True)
    assert seen == [] and set(metrics) == {
        "energy_mae", "forces_mae", "forces_cosine_similarity", "loss"
    }  # fmt: skip


def test_primary_metric_and_metrics_have_defaults(data, tmp_path):
    config = small_config(data)
    config["evaluation_metrics"] = {}
    trainer = make_trainer(config, tmp_path)
    assert trainer.evaluation_metrics["primary_metric"] == "forces_mae"
    config["evaluation_metrics"] = {"metrics": {"energy": ["mae"]}}
    assert make_trainer(config, tmp_path).evaluation_metrics["primary_metric"] == "energy_mae"


def test_checkpoints_keep_schedules_in_epochs_and_name_the_trainer(data, tmp_path):
    trainer = make_trainer(small_config(data), tmp_path)
    assert trainer.config["optim"]["scheduler_params"]["warmup_epochs"] == 0.25
    assert trainer.config["trainer"] == "dens_ocp.trainer.DeNSTrainer"
    # 8 steps: half of the warm-up step's rise, then the cosine
    assert trainer.scheduler.get_lr() == pytest.approx(0.001 * 0.2)


def without(config, *path):
    config = copy.deepcopy(config)
    section = config
    for key in path[:-1]:
        section = section[key]
    del section[path[-1]]
    return config


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: without(c, "optim", "dens"), ["optim.dens", "add"]),
        (lambda c: without(c, "dataset", "train", "transforms", "normalizer", "forces"),
         ["normalizer.forces", "DeNS"]),
        (lambda c: without(c, "outputs", "forces") | {"loss_functions": c["loss_functions"][:1]},
         ["outputs", "forces"]),
        (lambda c: without(c, "optim", "scheduler_params"), ["optim.scheduler_params"]),
        (lambda c: c | {"logger": None}, ["logger"]),
    ],
)  # fmt: skip
def test_configs_that_cannot_work(data, tmp_path, change, words):
    config = change(small_config(data))
    with pytest.raises(DensError) as error:
        make_trainer(config, tmp_path, is_debug=config["logger"] is not None)
    for word in words:
        assert word in str(error.value)


def test_model_without_noise_head(data, tmp_path):
    config = {**stock_config(data)}
    config["optim"]["dens"] = DENS
    with pytest.raises(DensError, match="no noise head"):
        make_trainer(config, tmp_path)
    config["optim"]["dens"] = {"enabled": False}
    trainer = make_trainer(config, tmp_path)
    _, loss = loss_of_a_step(trainer, first_batch(trainer))
    assert loss.isfinite()


def test_md_structures_are_left_alone_and_flags_are_not_inherited(tmp_path):
    """All+MD: a folder with two LMDBs, the second from MD; validation is another folder."""
    write_lmdb(tmp_path / "train" / "data.0000.lmdb", s2ef_records(4))
    write_lmdb(tmp_path / "train" / "md.0000.lmdb", s2ef_records(4, seed=5))
    write_lmdb(tmp_path / "val" / "data.lmdb", s2ef_records(2))
    config = small_config(tmp_path, dens={"p": 1, "r": 1}, load_balancing=None, batch_size=8)
    config["dataset"]["train"] |= {"format": "dens_lmdb", "md_files": ["md.*.lmdb"]}
    trainer = make_trainer(config, tmp_path / "run")
    batch = first_batch(trainer)
    loss_of_a_step(trainer, batch)
    assert batch.md.sum() == 4
    corrupted = structures(batch)
    assert torch.equal(corrupted, ~batch.md.bool()[batch.batch])
    trainer.validate(disable_tqdm=True)


# ---- forces are computed where they are looked at ------------------------------------------------


@pytest.fixture
def everywhere(monkeypatch):
    """The heads do not learn which atoms are looked at, so they compute all."""

    def forget() -> None:
        monkeypatch.setattr("dens_ocp.models.dens_model.read_plan", lambda batch: StepPlan())

    return forget


@pytest.mark.parametrize("free_only", [True, False])
@pytest.mark.parametrize(
    "model", [SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN], ids=["eqv2", "escn", "esen"]
)
def test_loss_metrics_and_gradients_of_a_step_are_the_same(
    data, tmp_path, model, free_only, everywhere
):
    config = small_config(data, model=model, dens={"p": 0.7, "r": 0.5, "sigma": 0.1})
    config["outputs"]["forces"]["eval_on_free_atoms"] = free_only
    found = []
    for whole in (False, True):
        if whole:
            everywhere()
        trainer = make_trainer(config, tmp_path)
        batch = first_batch(trainer)
        outputs, loss = loss_of_a_step(trainer, batch)
        metrics = trainer._compute_metrics(outputs, batch, trainer.evaluator, {})
        loss.backward()
        gradients = [p.grad for p in trainer.model.parameters() if p.requires_grad]
        found.append((loss.item(), metrics, torch.cat([each.flatten() for each in gradients])))
    (loss, metrics, gradients), (whole_loss, whole_metrics, whole_gradients) = found
    assert loss == pytest.approx(whole_loss, rel=1e-6)
    assert {name: each["metric"] for name, each in metrics.items()} == pytest.approx(
        {name: each["metric"] for name, each in whole_metrics.items()}, rel=1e-5
    )
    assert (gradients - whole_gradients).abs().max() < 1e-4 * whole_gradients.abs().max()


def test_validation_and_prediction_files_are_the_same(data, tmp_path, everywhere, monkeypatch):
    config = small_config(data)
    config["dataset"]["test"] = {"src": str(data / "val")}
    found = []
    for whole in (False, True):
        if whole:
            everywhere()
        trainer = make_trainer(config, tmp_path / str(whole), is_debug=False, timestamp_id="x")
        torch.manual_seed(0)
        metrics = trainer.validate("val", disable_tqdm=True)
        predictions = trainer.predict(
            trainer.test_loader, results_file="predictions", disable_tqdm=True
        )
        found.append((metrics, predictions["energy"], torch.cat(
            [torch.as_tensor(each).float() for each in predictions["forces"]])))  # fmt: skip
    (metrics, _, forces), (whole_metrics, _, whole_forces) = found
    for name in whole_metrics:
        assert metrics[name]["metric"] == pytest.approx(whole_metrics[name]["metric"], rel=1e-5)
    assert len(forces) and torch.allclose(forces, whole_forces, atol=2e-3)  # float16


def test_a_calculator_gets_the_forces_of_fixed_atoms_too(data, tmp_path):
    trainer = make_trainer(small_config(data), tmp_path)
    batch = next(iter(trainer.val_loader))
    forces = trainer.predict(batch, per_image=False, disable_tqdm=True)["forces"]
    assert (forces[batch.fixed == 1].abs().sum(1) > 0).all()


def test_an_optimizer_of_other_groups_is_named(data, tmp_path):
    """As when weight decay was 0, or for other parameters (equiformer_dens of earlier versions)."""
    config = small_config(data, max_epochs=1)
    first = make_trainer(config, tmp_path, is_debug=False, timestamp_id="first")
    first.train(disable_eval_tqdm=True)
    config["optim"]["optimizer_params"]["weight_decay"] = 0
    second = make_trainer(config, tmp_path)
    path = str(tmp_path / "checkpoints" / "first" / "checkpoint.pt")
    with pytest.raises(DensError, match=r"checkpoint.pt.*groups.*weight_decay.*best_checkpoint"):
        second.load_checkpoint(path)
    best = make_trainer(config, tmp_path)
    best.load_checkpoint(path.replace("checkpoint.pt", "best_checkpoint.pt"))


@pytest.mark.parametrize(
    "model", [SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN], ids=["eqv2", "escn", "esen"]
)
def test_scale_of_encoded_forces(data, tmp_path, model):
    """Forces ten times as large are encoded as with a scale of 10."""
    outputs = []
    for scale, factor in ((1.0, 10.0), (10.0, 1.0), (1.0, 1.0)):
        config = small_config(data, model={**model, "force_encoding_scale": scale}, dens={"p": 1})
        trainer = make_trainer(config, tmp_path)
        # eSCN starts with weights of 0.001
        trainer._unwrapped_model.force_embedding.weight.data.fill_(0.1)
        batch = first_batch(trainer)
        batch.forces = batch.forces * factor
        outputs.append(loss_of_a_step(trainer, batch)[0]["noise"])
    assert torch.allclose(outputs[0], outputs[1], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(outputs[0], outputs[2], rtol=1e-2, atol=1e-6)


SCALED = {"equiformer_v2_dens": SMALL_EQUIFORMER, "equiformer_dens": {"name": "equiformer_dens"}}


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf"), True])
@pytest.mark.parametrize("name", SCALED)
def test_scales_that_are_none(name, scale):
    with pytest.raises(DensError, match=r"model\.force_encoding_scale: .* larger than 0"):
        build_model({**SCALED[name], "force_encoding_scale": scale})


@pytest.mark.parametrize("name", SCALED)
def test_words_for_scales(name):
    options = run.model({**SCALED[name], "force_encoding_scale": "23.06"})
    assert build_model(options).force_encoding_scale == 23.06
    with pytest.raises(DensError, match=r"model\.force_encoding_scale: 'much'"):
        build_model(run.model({**SCALED[name], "force_encoding_scale": "much"}))


def test_a_checkpoint_remembers_the_scale(data, tmp_path, caplog):
    """It stands in the config of the checkpoint; training on with another one is said."""
    config = small_config(data, model={**SMALL_EQUIFORMER, "force_encoding_scale": 23.060548})
    config["optim"]["max_epochs"] = 1
    first = make_trainer(config, tmp_path, is_debug=False, timestamp_id="scaled")
    first.train(disable_eval_tqdm=True)
    path = tmp_path / "checkpoints" / "scaled" / "checkpoint.pt"
    saved = torch.load(path, weights_only=False)["config"]["model"]
    assert saved["force_encoding_scale"] == 23.060548
    caplog.clear()
    with caplog.at_level("WARNING"):
        make_trainer(config, tmp_path).load_checkpoint(str(path))
    assert "force_encoding_scale" not in caplog.text
    del config["model"]["force_encoding_scale"]
    with caplog.at_level("WARNING"):
        make_trainer(config, tmp_path).load_checkpoint(str(path))
    assert "trained with model.force_encoding_scale: 23.0605, but this config has 1;" in caplog.text


def test_a_batch_is_corrupted_once_and_never_evaluated_afterwards(data, tmp_path):
    """Its atoms would move twice while the labels say once; evaluated, its atoms with encoded
    forces had the forces 0."""
    trainer = make_trainer(small_config(data, dens={**DENS, "p": 1.0}), tmp_path)
    batch = first_batch(trainer)
    before = batch.pos
    loss_of_a_step(trainer, batch)
    assert torch.equal(batch.pos, before + batch.noise_vec) and batch.noise_vec.any()
    moved = batch.pos.clone()
    with pytest.raises(DensError, match="corrupted already.*moved twice.*use a new batch"):
        loss_of_a_step(trainer, batch, step=2)
    assert torch.equal(batch.pos, moved)
    trainer.model.eval()
    for use in (
        lambda: trainer._forward(batch),
        lambda: trainer.predict(batch, per_image=False, disable_tqdm=True),
    ):
        with pytest.raises(
            DensError, match="corrupted already.*forces are those of noisy structures"
        ):
            use()
    assert trainer.predict(first_batch(trainer), per_image=False)["forces"].any(dim=1).all()
    trainer.dens = trainer.dens.model_copy(update={"enabled": False})
    trainer.model.train()
    loss_of_a_step(trainer, batch)  # as authors' data code does it: labels and noise in the batch


def test_a_model_without_dens_refuses_a_corrupted_batch_too(data, tmp_path):
    used = first_batch(make_trainer(small_config(data), tmp_path))
    used.denoising_pos_forward = True
    stock = stock_config(data)
    stock["optim"]["dens"] = {"enabled": False}
    trainer = make_trainer(stock, tmp_path)
    trainer.model.eval()
    with pytest.raises(DensError, match="corrupted already"):
        trainer._forward(used)
