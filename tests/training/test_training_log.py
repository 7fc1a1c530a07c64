"""What a training run prints: a short line each ``--print-every`` steps, the rest in a file."""

import json
import logging
import re

import pytest
import torch

from dens_ocp.training.training_log import shown, summary
from tests.runs import logged, make_trainer, small_config, write_data


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("energy_mae", 0.5123, "512.3 meV"),
        ("energy_mae", 2.0, "2000 meV"),
        ("forces_mae", 0.0234567, "23.5 meV/A"),
        ("forcesx_mae", 0.5, "500.0 meV/A"),
        ("dens_forces_mae", 0.05, "50.0 meV/A"),
        ("forces_rmse", 0.05, "50.0 meV/A"),
        ("forces_magnitude_error", 0.05, "50.0 meV/A"),
        ("dens_noise_mae", 0.0712, "0.0712 A"),
        ("forces_cosine_similarity", 0.51239, "0.5124"),
        ("energy_mse", 0.25, "0.25"),
        ("dipole_mae", 0.25, "0.25"),
        ("loss", 12.3456, "12.35"),
    ],
)
def test_units(name, value, text):
    assert shown(name, value) == text


def test_summary_has_the_metric_that_picks_the_best():
    metrics = {"forces_cosine_similarity": 0.5, "loss": 1.0, "energy_mae": 0.5}
    assert summary(metrics) == "loss 1, energy MAE 500.0 meV"
    assert summary(metrics, "forces_cosine_similarity").endswith(", forces_cosine_similarity 0.5")


def test_a_run(data, tmp_path, caplog, monkeypatch):
    config = small_config(data, eval_every=4)
    logs = {}

    def recording(trainer):
        write = trainer.logger.log

        def log(values, step, split=""):
            logs[split, step] = {**values}
            write(values, step=step, split=split)

        monkeypatch.setattr(trainer.logger, "log", log)
        return trainer

    trainer = recording(
        make_trainer(config, tmp_path, is_debug=False, timestamp_id="run", print_every=2)
    )
    with caplog.at_level(logging.INFO):
        trainer.train(disable_eval_tqdm=True)
    steps = [line for line in caplog.messages if line.startswith("step ")]
    assert [line.split(", loss")[0] for line in steps] == [
        "step 2 of 8, epoch 0.5 of 2", "step 4 of 8, epoch 1 of 2", "step 6 of 8, epoch 1.5 of 2",
        "step 8 of 8, epoch 2 of 2",
    ]  # fmt: skip
    errors = r"energy MAE [\d.]+ meV, force MAE [\d.]+ meV/A, noise MAE [\d.]+ A"
    for line in steps:
        assert re.search(rf", loss [\d.]+, {errors}, \d:\d\d:\d\d left$", line) and len(line) < 150
    assert steps[-1].endswith("0:00:00 left")
    assert not [line for line in caplog.messages if "lr: " in line or "forces_mae: " in line]
    validations = [line for line in caplog.messages if line.startswith("validation at step")]
    assert [line.split(":")[0] for line in validations] == [
        "validation at step 4", "validation at step 8",
    ]  # fmt: skip

    # all metrics, in the file and in the logger
    written = logged(tmp_path, "run")
    assert [line["step"] for line in written] == [2, 4, 6, 8]
    for line in written:
        theirs = logs["train", line["step"]]
        assert {name: line[name] for name in theirs} == pytest.approx(theirs)
        assert {"loss_noise", "dens_structures", "lr", "forces_cosine_similarity"} <= set(line)
    printed = float(re.search("force MAE ([\\d.]+) meV", steps[-1])[1])
    assert printed == pytest.approx(1000 * written[-1]["forces_mae"], rel=0.01)
    assert [line["step"] for line in logged(tmp_path, "run", "val")] == [4, 8]

    # the last line
    folder = tmp_path / "checkpoints/run"
    best = shown("forces_mae", trainer.best_val_metric)
    assert caplog.messages[-1] == (
        f"finished after step 8 of 8: best forces_mae {best} in {folder}/best_checkpoint.pt; "
        f"next: dens-ocp report run --run-dir {tmp_path}"
    )

    # a run that goes on, after a kill in the middle of a line
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text() + '{"split": "tra')
    monkeypatch.chdir(tmp_path)
    config["optim"]["max_epochs"] = 3
    del config["dataset"]["val"]
    again = make_trainer(config, tmp_path, is_debug=False, timestamp_id="run", print_every=4)
    again.load_checkpoint(str(folder / "checkpoint.pt"))
    with caplog.at_level(logging.INFO):
        again.train()
    lines = path.read_text().splitlines()
    assert lines[-2] == '{"split": "tra' and json.loads(lines[-1])["step"] == 12
    assert caplog.messages[-1].endswith("next: dens-ocp report run")


def test_numbers_that_are_not_finite_are_null(data, tmp_path):
    trainer = make_trainer(small_config(data, max_epochs=1), tmp_path, is_debug=False)
    errors = trainer._errors

    def broken(*args, **options):
        return {**errors(*args, **options), "forces_mae": torch.tensor([float("nan")])}

    trainer._errors = broken
    trainer.config["cmd"]["print_every"] = 1
    trainer.train(disable_eval_tqdm=True)
    assert {line["forces_mae"] for line in logged(tmp_path)} == {None}
