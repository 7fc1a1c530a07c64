"""Command lines, and users' mistakes as they are shown."""

import os
import subprocess
import sys

import pytest

from tests.runs import dens_ocp, environment, run, small_config, write_config


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
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(data, tmp_path, arguments, words):
    write_config(tmp_path / "c.yml", small_config(data))
    (tmp_path / "broken.yml").write_text("a: [1, 2\nb: {")
    (tmp_path / "empty.yml").write_text("")
    (tmp_path / "list.yml").write_text("- 1")
    line = error_of(dens_ocp("main", *arguments, "--cpu", cwd=tmp_path, check=False))
    for word in words:
        assert word in line


def test_overrides_reach_the_dens_block(data, tmp_path):
    config = write_config(tmp_path / "c.yml", small_config(data, max_epochs=1))
    log = run("train", config, "--optim.dens.p=1", "--optim.dens.r=1", cwd=tmp_path).stdout
    assert log.count("dens_corrupted_atoms: 1.00e+00") == 4


@pytest.mark.parametrize("arguments", [["--help"], ["main", "--help"], ["demo", "--help"]])
def test_help(tmp_path, arguments):
    shown = dens_ocp(*arguments, cwd=tmp_path).stdout
    assert "usage:" in shown and "DeNS" in shown + "DeNS" * ("--mode" in shown)


def test_mistakes_on_two_ranks(data, tmp_path):
    config = small_config(data)
    config["dataset"]["train"]["transforms"]["normalizer"].pop("forces")
    path = write_config(tmp_path / "c.yml", config)
    done = run("train", path, "--num-gpus", "2", cwd=tmp_path, check=False)
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
        [sys.executable, "-m", "dens_ocp.cli", *arguments],
        stdout=writer,
        stderr=subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED=unbuffered),
        text=True,
        cwd=tmp_path,
    )
    os.close(writer)
    assert done.returncode == 141, done.stderr
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
