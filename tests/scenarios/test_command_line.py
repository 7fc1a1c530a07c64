"""Command lines, and users' mistakes as they are shown."""

import os
import subprocess
import sys

import numpy as np
import pytest

from dens_ocp.tools import fairchem_command
from dens_ocp.tools.cli import COMMANDS, main
from tests.runs import (
    dens_ocp,
    environment,
    fairchem_alone,
    logged,
    run,
    small_config,
    write_config,
)


def error_of(done) -> str:
    assert done.returncode == 2, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Traceback" not in done.stderr + done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config-yml", "c.yml"], ["--mode"]),
        (["--mode", "train", "--config-yml", "nowhere.yml"], ["nowhere.yml", "does not exist"]),
        (["--mode", "validate", "--config-yml", "c.yml"], ["--checkpoint"]),
        (["--mode", "train", "--config-yml", "c.yml", "--optim.lr", "3"], ["--optim.lr", "="]),
        (["--mode", "train", "--config-yml", "broken.yml"], ["broken.yml", "YAML"]),
        (["--mode", "train", "--config-yml", "empty.yml"], ["empty.yml", "no sections"]),
        (["--mode", "train", "--config-yml", "list.yml"], ["list.yml", "mapping of sections"]),
        (["--mode", "train", "--config-yml", "c.yml", "--optim.dens.p=3"], ["optim.dens.p", "3"]),
        (["--mode", "train", "--config-yml", "c.yml", "--dataset.train.src=nowhere"],
         ["dataset.train.src", "nowhere"]),
        (["--mode", "train", "--config-yml", "c.yml", "--dataset.train.src="], ["dataset.train"]),
        (["--mode", "predict", "--config-yml", "c.yml", "--checkpoint", "x.pt"],
         ["dataset.test is missing", "--dataset.test.src=PATH"]),
        (["--mode", "train", "--config-yml", "c.yml", "--dataset.train.src=/data/a=b"],
         ["dataset.train.src", "/data/a=b", "does not exist"]),
        (["--mode", "validate", "--config-yml", "c.yml", "--checkpoint", "runs"],
         ["runs is a folder", "one of its files: best_checkpoint.pt, checkpoint.pt"]),
        (["--mode", "train", "--config-yml", "c.yml", "--optm.batch_size=3"], ["optm", "'optim'"]),
        (["--mode", "train", "--config-yml", "c.yml", "--logger=tensorbord"],
         ["tensorbord", "'tensorboard'"]),
        (["--mode", "train", "--config-yml", "c.yml", "--trainer=denss"], ["denss", "'dens'"]),
        (["--mode", "train", "--config-yml", "c.yml", "--trainer=", "--traner=dens"],
         ["traner", "'trainer'"]),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(data, tmp_path, arguments, words):
    write_config(tmp_path / "c.yml", small_config(data))
    (tmp_path / "broken.yml").write_text("a: [1, 2\nb: {")
    (tmp_path / "empty.yml").write_text("")
    (tmp_path / "list.yml").write_text("- 1")
    (tmp_path / "runs").mkdir()
    for name in ("best_checkpoint.pt", "checkpoint.pt"):
        (tmp_path / "runs" / name).write_text("")
    line = error_of(dens_ocp("main", *arguments, "--cpu", cwd=tmp_path, check=False))
    for word in words:
        assert word in line


def test_overrides_reach_the_dens_block(data, tmp_path):
    config = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    run("train", config, "--optim.dens.p=1", "--optim.dens.r=1", "--timestamp-id=all", cwd=tmp_path)
    steps = [line["dens_corrupted_atoms"] for line in logged(tmp_path, "all")]
    assert steps == [1.0] * 4


def test_no_gpu_an_equals_sign_and_the_printed_config(data, tmp_path):
    """Without --cpu, with --amp, with a path that has a ``=``: one run says and does it all."""
    folder = tmp_path / "lr=0.1"
    folder.symlink_to(data / "train")
    config = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    done = dens_ocp(
        "main", "--mode", "train", "--config-yml", config, "--amp", "--run-dir", tmp_path,
        f"--dataset.train.src={folder}", "--optim.lr_initial=1e-3", cwd=tmp_path,
        CUDA_VISIBLE_DEVICES="",
    )  # fmt: skip
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2 and "no GPU" in notes[0] and "--cpu" in notes[0]
    assert "--amp has no effect on the CPU" in notes[1]
    log = done.stdout + done.stderr
    assert f"src: {folder}" in log
    assert "trainer: dens_ocp.trainer.DeNSTrainer" in log and "trainer: ocp" not in log
    assert list(tmp_path.glob("checkpoints/*/checkpoint.pt"))


def test_two_ranks_count_the_atoms_for_load_balancing(data, tmp_path):
    """Without metadata.npz: the file is made once, and the run is the one with the file."""
    config = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    there = {split: np.load(data / split / "metadata.npz")["natoms"] for split in ("train", "val")}
    run("train", config, "--num-gpus", "2", "--timestamp-id", "with", cwd=tmp_path)
    for split in there:
        (data / split / "metadata.npz").unlink()
    done = run("train", config, "--num-gpus", "2", "--timestamp-id", "without", cwd=tmp_path)
    losses = [[line["loss"] for line in logged(tmp_path, name)] for name in ("with", "without")]
    assert losses[0] == losses[1] != []
    found = np.load(data / "train" / "metadata.npz")["natoms"]
    assert np.array_equal(found, there["train"])
    assert len(list((data / "train").glob("*metadata*"))) == 1
    # validations are dealt out batch by batch, and nobody asks for their numbers of atoms
    assert not list((data / "val").glob("*metadata*"))
    assert "Counting the atoms of 12 structures, for load balancing: 100%" in done.stderr


def test_the_short_name_in_ranks_that_stock_fairchem_starts(data, tmp_path):
    config = small_config(data, max_epochs=1)
    config["trainer"] = "dens"
    path = write_config(tmp_path / "c.yml", config)
    program = (
        "import sys, dens_ocp; from fairchem.core._cli import main; "
        "from fairchem.core.common.flags import flags; "
        "main(*flags.get_parser().parse_known_args(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--mode", "train", "--config-yml", path, "--cpu",
         "--num-gpus", "2", "--run-dir", tmp_path, "--timestamp-id", "x", "--print-every", "1"],
        env=environment(), capture_output=True, text=True, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(line.get("dens_corrupted_atoms") for line in logged(tmp_path, "x"))
    assert (tmp_path / "checkpoints/x/checkpoint.pt").is_file()


@pytest.mark.parametrize("arguments", [["--help"], ["main", "--help"], ["demo", "--help"]])
def test_help(tmp_path, arguments):
    shown = dens_ocp(*arguments, cwd=tmp_path).stdout
    assert "usage:" in shown.lower() and "DeNS" in shown + "DeNS" * ("--mode" in shown)


HEAVY = """
import sys
from dens_ocp.tools import cli
code = cli.main(sys.argv[1:])
heavy = sorted({name.split(".")[0] for name in sys.modules} & {"torch", "fairchem", "ase", "numpy"})
print(f"exit code {code}, imported: {heavy}")
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["main", "--mode", "validate", "--config-yml", __file__], 2),
        (["plam"], 2),
        (["--halp"], 2),
        *(([name, "--help"], 0) for name in COMMANDS if name != "main"),
        (["data", "from-npz", "--help"], 0),
        (["data", "from-npz", "x.npz", "--out", "x", "--no-progess"], 2),
        (["ablate", "plan.yml", "--num-gpu", "2"], 2),
    ],
)
def test_help_and_wrong_arguments_import_nothing_heavy(tmp_path, arguments, code):
    done = subprocess.run(
        [sys.executable, "-c", HEAVY, *arguments], env=environment(), cwd=tmp_path,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert f"exit code {code}, imported: []" in done.stdout, done.stdout + done.stderr
    assert ("error: " in done.stderr) == (code == 2)


@pytest.mark.parametrize("first", ["import dens_ocp", "import fairchem.core, dens_ocp"])
def test_names_are_known_when_fairchem_asks(tmp_path, first):
    program = f"""
import sys
{first}
assert ("torch" in sys.modules) == ("fairchem" in {first!r})
assert "dens_ocp.training.trainer" not in sys.modules
from fairchem.core.common.registry import Registry, registry
assert registry.get_dataset_class("dens_lmdb").__module__ == "dens_ocp.data.dens_lmdb"
assert "dens_ocp" not in Registry.get_class.__func__.__module__
assert registry.get_model_class("equiformer_v2_dens").__name__ == "EquiformerV2DeNS"
assert registry.get_trainer_class("dens").__name__ == "DeNSTrainer"
"""
    alone = fairchem_alone() if "fairchem" in first else environment()
    subprocess.run([sys.executable, "-c", program], env=alone, cwd=tmp_path, check=True)


def test_did_you_mean(capsys):
    assert main(["docter"]) == 2
    assert "Did you mean 'doctor'?" in capsys.readouterr().err
    assert main(["data", "from-npz", "--out", "x", "--trian", "3"]) == 2
    assert "'--train'" in capsys.readouterr().err


def test_mistakes_on_two_ranks(data, tmp_path):
    config = small_config(data)
    config["dataset"]["train"]["transforms"]["normalizer"].pop("forces")
    path = write_config(tmp_path / "c.yml", config)
    done = run("train", path, "--num-gpus", "2", cwd=tmp_path, check=False, fresh=True)
    assert done.returncode == 2
    # torch's launcher adds its own report of the ranks that ended
    assert "error: dataset.train.transforms.normalizer.forces" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        (["--help"], ""),
        (["main", "--help"], ""),
        (["plan", "c.yml", "--gpus", "8", "--no-measure"], ""),
        (["plan", "c.yml", "--gpus", "8", "--no-measure"], "1"),
    ],
)
def test_a_reader_who_leaves_is_no_error(data, tmp_path, arguments, unbuffered):
    write_config(tmp_path / "c.yml", small_config(data))
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "dens_ocp.tools.cli", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED=unbuffered),
        text=True,
        cwd=tmp_path,
    )
    os.close(writer)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


OFFICIAL = {
    "use_denoising_pos": True, "denoising_pos_coefficient": 10,
    "denoising_pos_params": {"prob": 0.5, "fixed_noise_std": True, "std": 0.1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("trainer", "optim", "warning"),
    [
        ("equiformerv2_forces", OFFICIAL, "does not read optim.use_denoising_pos"),
        ("ocp", {"dens": {"p": 0.5}}, "does not read optim.dens"),
        ("equiformerv2_dens", OFFICIAL, "adds the force loss twice"),
        ("equiformerv2_forces", {**OFFICIAL, "use_denoising_pos": False}, None),
        ("equiformerv2_forces", {}, None),
        ("dens", {"dens": {"p": 0.5}}, None),
    ],
)
def test_dens_that_the_trainer_does_not_do(capsys, trainer, optim, warning):
    """The published eqV2_31M_dens_mptrj.yml trains without DeNS, and nothing says so."""
    fairchem_command._check_settings({"trainer": trainer, "optim": optim})
    said = capsys.readouterr().err
    assert (warning in said and "write trainer: dens" in said) if warning else not said
