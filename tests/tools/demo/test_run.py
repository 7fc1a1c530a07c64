"""Arguments of the demo, its configs, and how it runs processes."""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import ase.io
import click
import numpy as np
import pytest
import yaml
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from dens_ocp.checkpoints import metrics_file
from dens_ocp.dens.config import parse_dens_config
from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import OC20
from dens_ocp.results.pipeline.options import load_settings
from dens_ocp.results.pipeline.process import run_cli
from dens_ocp.tools.cli import COMMANDS, main
from dens_ocp.tools.demo import runs, steps
from dens_ocp.tools.demo.given import elements, known_to, labels, normalizers, read_given
from dens_ocp.tools.demo.run import NOTE, run_id_of
from dens_ocp.tools.demo.runs import Trained, training_progress
from tests.conftest import build_model
from tests.lmdbs import s2ef_records, write_lmdb
from tests.lmdbs import write_is2re as write_is2re_lmdb
from tests.lmdbs import write_s2ef as write_s2ef_lmdb
from tests.runs import environment, make_trainer, small_config

NORMALIZERS = {"energy": {"mean": 0.0, "stdev": 1.0}, "forces": {"mean": 0.0, "stdev": 1.0}}


def training(**changes):
    options = {
        "train": Path("a"), "val": Path("b"), "normalizers": NORMALIZERS,
        "epochs": 3, "steps_per_epoch": 10,
    }  # fmt: skip
    return runs.training_config(**{**options, **changes})


# ---- arguments ---------------------------------------------------------------------------------


def unwritable(tmp_path):
    """A place where nobody can make a folder: below a file; root, too, is refused in /sys."""
    (tmp_path / "file").write_text("")
    return [tmp_path / "file" / "work", Path("/sys/dens-ocp-demo")]


@pytest.mark.parametrize("number", [0, 1])
def test_a_folder_that_cannot_be_written_is_named(number, tmp_path, capsys):
    folder = unwritable(tmp_path)[number]
    assert main(["demo", "--quick", "--workdir", str(folder)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --workdir: {folder} cannot be written (")
    assert len(error.splitlines()) == 1


def test_the_default_folder_in_a_place_that_cannot_be_written(capsys, monkeypatch):
    monkeypatch.chdir("/sys")
    assert main(["demo", "--quick"]) == 2
    assert capsys.readouterr().err.startswith("error: --workdir: demo-run cannot be written (")


@pytest.mark.parametrize("command", ["data", "submission", "evaluate", "export", "report"])
@pytest.mark.parametrize("number", [0, 1])
def test_no_command_answers_with_a_trace(command, number, tmp_path, capsys):
    """Every command that writes; what it would write from is small, or not reached."""
    folder = unwritable(tmp_path)[number]
    words = {
        "data": ["data", "from-xyz", xyz_file(tmp_path), "--box", "30", "--train", "2",
                 "--val", "1", "--out", folder / "out"],
        "submission": ["submission", "make", "--task", "s2ef", "--out", folder / "out.npz",
                       *result_files(tmp_path)],
        "evaluate": ["evaluate", tmp_path / "checkpoint.pt", "--config-yml",
                     tmp_path / "evaluate.yml", "--out", folder / "out"],
        "export": ["export", tmp_path / "checkpoint.pt", folder / "out.pt"],
        "report": ["report", tmp_path / "run", "--out", folder / "out"],
    }[command]  # fmt: skip
    if command in ("evaluate", "export", "report"):
        checkpoint(tmp_path)
    assert main([str(word) for word in words]) == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error and str(folder) in error.splitlines()[-1], error


def result_files(folder):
    """A file and an option for each split; the place to write in is looked at before them."""
    options = []
    for split in OC20.splits:
        (folder / f"{split}.npz").write_bytes(b"")
        options.append(f"--{split.replace('_', '-')}={folder / split}.npz")
    return options


def xyz_file(folder):
    frames = []
    for seed in range(4):
        atoms = molecule("H2O")
        atoms.rattle(0.05, seed=seed)
        atoms.calc = EMT()
        atoms.calc = SinglePointCalculator(
            atoms, energy=atoms.get_potential_energy(), forces=atoms.get_forces()
        )
        frames.append(atoms)
    ase.io.write(folder / "water.xyz", frames, format="extxyz")
    return folder / "water.xyz"


def checkpoint(folder):
    """A small model's, and the config of an evaluation; a run's folder for the report."""
    data = write_s2ef_lmdb(folder / "data", 3)
    settings = small_config(folder, dens={"p": 0})
    settings["dataset"] = {"train": {**settings["dataset"]["train"], "src": str(data)}}
    settings["optim"] |= {"max_epochs": 1, "load_balancing": False}
    trainer = make_trainer(settings, folder, is_debug=False, timestamp_id="run")
    trainer.train(disable_eval_tqdm=True)
    saved = folder / "checkpoints" / "run" / "checkpoint.pt"
    (folder / "run").mkdir()
    for path in (folder / "checkpoint.pt", folder / "run" / "checkpoint.pt"):
        path.write_bytes(saved.read_bytes())
    evaluation = {"evaluation": {"s2ef": {"val": str(data)}}}
    (folder / "evaluate.yml").write_text(yaml.safe_dump(evaluation))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--train-lmdb", "."], ["--train-lmdb", "without --val-lmdb"]),
        (["--val-lmdb", "."], ["--val-lmdb", "without --train-lmdb"]),
        (["--train-lmdb", "nowhere", "--val-lmdb", "."], ["--train-lmdb", "nowhere"]),
        (["--epochs", "0"], ["--epochs", "0"]),
        (["--seed", "-1"], ["--seed", "-1"]),
    ],
)
def test_mistakes_are_named_before_anything_is_written(words, expected, tmp_path, capsys):
    status = main(["demo", "--workdir", str(tmp_path / "work"), *words])
    message = capsys.readouterr().err
    assert status == 2
    assert message.startswith("error: ") and all(word in message for word in expected)
    assert not (tmp_path / "work").exists()


def test_workdir_that_is_a_file(tmp_path, capsys):
    file = tmp_path / "work"
    file.write_text("")
    assert main(["demo", "--workdir", str(file)]) == 2
    assert "--workdir" in capsys.readouterr().err


def test_longer_epochs_are_fewer():
    assert steps.epochs_for(36_000) == steps.epochs_for(5) == steps.EPOCHS
    assert steps.epochs_for(36_000 * steps.EPOCHS) == steps.epochs_for(10**9) == 1
    assert steps.epochs_for(5, quick=True) == steps.QUICK_EPOCHS


# ---- given data --------------------------------------------------------------------------------


def test_given_data(tmp_path):
    write_s2ef_lmdb(tmp_path / "data", 5)
    given = read_given("--train-lmdb", tmp_path / "data")
    records = s2ef_records(5)
    assert [len(each.pos) for each in given] == [record.natoms for record in records]
    assert normalizers(given)["energy"]["mean"] == pytest.approx(np.mean([r.y for r in records]))
    assert (labels(given)[0] == [float(record.y) for record in records]).all()
    assert elements(given) == {number for r in records for number in r.atomic_numbers.tolist()}
    one = read_given("--val-lmdb", tmp_path / "data" / "data.0000.lmdb")
    assert [each.id for each in one] == [each.id for each in given]


def test_structures_with_elements_that_were_not_trained_on(tmp_path):
    write_lmdb(tmp_path / "train.lmdb", s2ef_records(2))  # Cu, Pt; O, N
    write_lmdb(tmp_path / "val.lmdb", s2ef_records(4))  # Al, Ni; H too
    train = read_given("--train-lmdb", tmp_path / "train.lmdb")
    val = read_given("--val-lmdb", tmp_path / "val.lmdb")
    assert known_to(train, val).tolist() == [True, True, False, False]


def test_given_data_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DensError, match="--train-lmdb.*no records"):
        read_given("--train-lmdb", tmp_path / "empty")
    write_is2re_lmdb(tmp_path / "is2re", 2)
    with pytest.raises(DensError, match="no y"):
        read_given("--val-lmdb", tmp_path / "is2re")
    record = s2ef_records(1)[0]
    write_lmdb(tmp_path / "twice" / "data.lmdb", [record, record])
    with pytest.raises(DensError, match="same sid and fid"):
        read_given("--val-lmdb", tmp_path / "twice", unique=True)


# ---- configs -----------------------------------------------------------------------------------


def test_the_two_trainings_of_compare_differ_in_one_option():
    dens, plain = training(), training(dens=False)
    assert parse_dens_config(dens["optim"]).active and not parse_dens_config(plain["optim"]).active
    plain["optim"]["dens"]["enabled"] = True
    assert dens == plain


def test_validations_are_spread_over_the_run():
    assert training(epochs=3, steps_per_epoch=10)["optim"]["eval_every"] == 30 // runs.VALIDATIONS
    assert training(epochs=1, steps_per_epoch=2)["optim"]["eval_every"] == 1


def test_the_evaluation_config_is_one_of_dens_ocp_evaluate(tmp_path):
    made = runs.evaluation_config({"id": tmp_path}, {"id": tmp_path}, 5, "OC20")
    path = tmp_path / "c.yml"
    path.write_text(yaml.safe_dump(made))
    settings = load_settings(path, {"config": training()}, [])
    assert settings.splits == ("id",) and settings.board.name == "OC20"
    assert settings.host["task"] == {**runs.recipe()["task"], "relaxation_steps": 5}


def test_the_recipes_model_can_be_built():
    model = build_model(runs.recipe()["model"])
    assert 10_000 < sum(parameter.numel() for parameter in model.parameters()) < 1_000_000


# ---- processes ---------------------------------------------------------------------------------


def test_a_failed_run_says_why_and_where(tmp_path):
    lines, log = [], tmp_path / "logs" / "run.log"
    with pytest.raises(DensError) as error:
        run_cli(
            ["--mode", "train", "--config-yml", "nowhere.yml"], log=log, on_line=lines.append,
            cwd=tmp_path,
        )  # fmt: skip
    assert "nowhere.yml does not exist" in str(error.value) and str(log) in str(error.value)
    assert any("nowhere.yml does not exist" in line for line in lines)
    assert log.read_text().splitlines()[1:] == lines


def write_metrics(folder, *lines):
    with open(folder / metrics_file.NAME, "a") as file:
        for line in lines:
            file.write(json.dumps({"epoch": 1, "time": 0.0, **line}) + "\n")


def test_training_lines_are_made_short(tmp_path):
    said = []
    step = {"split": "train", "loss": 3.5, "forces_mae": 0.123}
    write_metrics(tmp_path, {**step, "step": 10})  # of the run before it was interrupted
    progress = training_progress("DeNS", tmp_path, 40, every=100.0, write=said.append)
    progress("x (INFO): starts")
    assert said == []
    write_metrics(tmp_path, {**step, "step": 10, "time": 1.0})
    progress("x (INFO): step 10")
    write_metrics(tmp_path, {**step, "step": 20})  # too soon
    validation = {"energy_mae": 0.05, "forces_mae": 0.025, "loss": 1, "dens_noise_mae": None}
    write_metrics(tmp_path, {"split": "val", "step": 20, **validation})
    progress("Evaluating on val")
    progress("Evaluating on val")
    write_metrics(tmp_path, {**step, "step": 40})
    progress("x (INFO): step 40")
    assert len(said) == 3
    assert said[0].endswith("step 10/40  loss 3.5, force MAE 123.0 meV/A")
    assert "energy MAE 50.0 meV, force MAE 25.0 meV/A" in said[1]
    assert "step 40/40" in said[2]


def test_the_best_validation_is_that_of_the_best_checkpoint(tmp_path):
    write_metrics(
        tmp_path,
        *({"split": "val", "step": step, "forces_mae": error}
          for step, error in ((10, 0.3), (20, 0.1), (30, 0.2))),
        {"split": "train", "step": 40, "forces_mae": 0.01},
    )  # fmt: skip
    assert Trained("DeNS", {}, tmp_path).best_validation()["step"] == 20


# ---- interrupted -------------------------------------------------------------------------------


def test_the_same_call_goes_on_with_an_interrupted_demo(tmp_path):
    arguments = {"seed": 0, "train_lmdb": tmp_path}
    with pytest.raises(KeyboardInterrupt), run_id_of(tmp_path, arguments) as (first, goes_on):
        assert not goes_on
        raise KeyboardInterrupt
    with run_id_of(tmp_path, {**arguments, "seed": 1}) as (other, goes_on):
        assert other != first and not goes_on
    with pytest.raises(KeyboardInterrupt), run_id_of(tmp_path, arguments) as (first, _):
        raise KeyboardInterrupt
    with run_id_of(tmp_path, arguments) as (second, goes_on):
        assert second == first and goes_on
        # another process with the same arguments while this one is at work
        code = (
            "import sys, pathlib; from dens_ocp.tools.demo.run import run_id_of\n"
            "path = pathlib.Path(sys.argv[1])\n"
            "with run_id_of(path, {'seed': 0, 'train_lmdb': path}) as found: print(*found)"
        )
        note = (tmp_path / NOTE).read_text()
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment(), check=True,
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.stdout.split()[0] != first and done.stdout.split()[1] == "False"
        (tmp_path / NOTE).write_text(note)
    with pytest.raises(DensError), run_id_of(tmp_path, arguments) as (third, goes_on):
        assert third != first and not goes_on  # it had finished
        raise DensError("a run failed")
    with run_id_of(tmp_path, arguments) as (_, goes_on):
        assert not goes_on


@pytest.mark.parametrize("command", ["evaluate", "ablate", "demo", "data"])
def test_ctrl_c_says_what_the_same_call_does(command, monkeypatch, capsys):
    """No stack trace, and a shell's exit code of an interrupted program."""
    module = importlib.import_module(COMMANDS[command][0])

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)

    if hasattr(module, "run"):
        monkeypatch.setattr(module, "run", interrupted)
    monkeypatch.setattr(click.Command, "invoke", interrupted)
    words = {"evaluate": ["c.pt", "--config-yml", "c.yml"], "ablate": ["plan.yml"],
             "demo": [], "data": ["suggest", "folder"]}[command]  # fmt: skip
    assert main([command, *words]) == 130
    said = "" if command == "data" else "; run the same command again to resume"
    assert capsys.readouterr().err == f"interrupted{said}\n"
