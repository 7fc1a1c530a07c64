"""``dens-ocp doctor CONFIG``: findings on data, options and model."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from dens_ocp.tools.doctor import command, machine
from dens_ocp.tools.doctor.data import nearest_neighbour, sample
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING
from dens_ocp.tools.doctor.machine import all_reduce
from tests.conftest import slab
from tests.lmdbs import s2ef_records, write_lmdb
from tests.runs import dens_ocp, small_config, write_config, write_data


@pytest.fixture
def data(tmp_path) -> Path:
    return write_data(tmp_path / "data")


def findings(config: dict, folder: Path, *overrides: str, everything: bool = False) -> list:
    """Of the checks that need a config; the others are independent of it."""
    path = write_config(folder / "config.yml", config)
    return list(command.config_findings(path, folder, everything, list(overrides)))


def those(found: list, status: str) -> list[str]:
    return [f"{each.check}: {each.text} -> {each.fix}" for each in found if each.status == status]


def test_a_good_config_has_no_problem(data, tmp_path):
    found = findings(small_config(data), tmp_path)
    assert those(found, PROBLEM) == []
    good = " ".join(those(found, OK))
    for words in ("12 records", "6 records", "units are plausible", "parameters", "p 0.5, r 0.5",
                  "normalizer.forces", "12 entries"):  # fmt: skip
        assert words in good


def test_overrides_are_those_of_fairchem(data, tmp_path):
    (problem,) = those(findings(small_config(data), tmp_path, "--dataset.val.src=nowhere"), PROBLEM)
    assert "nowhere" in problem and "dataset.val" in problem
    (problem,) = those(findings(small_config(data), tmp_path, "--optim.dens.simga=1"), PROBLEM)
    assert "simga" in problem and "sigma" in problem


def broken_records(number: int) -> list:
    records = s2ef_records(40)
    records[number].force[0, 0] = float("nan")
    return records


def test_a_bad_record_in_the_middle_is_found_by_all(data, tmp_path):
    drawn = sample(40, everything=False)
    hidden = next(index for index in range(40) if index not in drawn)
    write_lmdb(data / "train/data.0000.lmdb", broken_records(hidden))
    np.savez(data / "train/metadata.npz", natoms=[r.natoms for r in s2ef_records(40)])
    config = small_config(data)
    assert those(findings(config, tmp_path), PROBLEM) == []
    (problem,) = those(findings(config, tmp_path, everything=True), PROBLEM)
    assert "1 of 40 records" in problem and "NaN" in problem and f"index {hidden}" in problem


@pytest.mark.parametrize("case", ["missing", "length", "order", "not asked for"])
def test_metadata(data, tmp_path, case):
    config, path = small_config(data), data / "train/metadata.npz"
    natoms = np.load(path)["natoms"]
    if case == "length":
        np.savez(path, natoms=natoms[:-1])
    elif case == "order":
        np.savez(path, natoms=natoms + 1)
    else:
        path.unlink()
    if case in ("missing", "not asked for"):
        if case == "not asked for":
            config["optim"]["load_balancing"] = None
        found = findings(config, tmp_path)
        assert those(found, PROBLEM) == []
        (warning,) = [each for each in those(found, WARNING) if "dataset.train metadata" in each]
        assert ("first reads all records" in warning) == (case == "missing")
        assert "make_lmdb_sizes --data-path" in warning
        return
    (problem,) = those(findings(config, tmp_path), PROBLEM)
    assert "dataset.train metadata" in problem and "make_lmdb_sizes --data-path" in problem


def test_units_in_bohr_are_noticed(data, tmp_path):
    records = s2ef_records(12)
    for record in records:
        record.pos, record.cell = record.pos / 0.529177, record.cell / 0.529177
    write_lmdb(data / "train/data.0000.lmdb", records)
    (warning,) = [each for each in those(findings(small_config(data), tmp_path), WARNING)
                  if "units" in each]  # fmt: skip
    assert "nearest neighbours" in warning


def test_nearest_neighbour_of_copper():
    # Cu, a = 3.61: a / sqrt(2) = 2.55, within the rattling of 0.1
    assert nearest_neighbour(slab("Cu", "O", 0, (3, 3, 3))) == pytest.approx(2.55, abs=0.4)


def test_md_flags(data, tmp_path):
    config = small_config(data)
    config["dataset"]["train"]["format"] = "dens_lmdb"
    (warning,) = [each for each in those(findings(config, tmp_path), WARNING) if "MD" in each]
    assert "0 of 12 records are MD" in warning and "md_source: none" in warning
    lines = ["random1,md,x"] * 5 + ["random1,relaxations,x"] * 7
    (data / "train/data_log.0000.txt").write_text("\n".join(lines) + "\n")
    assert "5 of 12 records are MD (never corrupted), md_source: data_log" in " ".join(
        those(findings(config, tmp_path), OK)
    )


def test_options_of_training(data, tmp_path):
    config = small_config(data)
    del config["dataset"]["train"]["transforms"]["normalizer"]["forces"]
    config["model"] = {**config["model"], "num_layer": 2}
    problems = those(findings(config, tmp_path), PROBLEM)
    assert len(problems) == 2
    assert any("normalizer.forces" in each and "--dataset.train" in each for each in problems)
    assert any("num_layer" in each and "num_layers" in each for each in problems)


def test_checkpoints_need_space(tmp_path):
    # weights, two moments, average: 4 x 4 bytes
    assert machine.checkpoint_bytes(10) == 160
    (much,) = machine.check_run_folder(tmp_path, 10**15)
    assert much.status == PROBLEM and "--run-dir" in much.fix
    (little,) = machine.check_run_folder(tmp_path / "not" / "yet", 10)
    assert little.status == OK


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_to(tmp_path):
    tmp_path.chmod(0o500)
    (finding,) = machine.check_run_folder(tmp_path)
    tmp_path.chmod(0o700)
    assert finding.status == PROBLEM


def test_all_reduce():
    assert all_reduce("gloo", 2) == ""
    assert "nobackend" in all_reduce("nobackend", 2).lower()


@pytest.mark.slow
def test_exit_codes(data, tmp_path):
    path = write_config(tmp_path / "config.yml", small_config(data))
    good = dens_ocp("doctor", path, cwd=tmp_path, WANDB_MODE="offline")
    assert "0 problems" in good.stdout and "model" in good.stdout
    bad = dens_ocp("doctor", "--config-yml", path, "--dataset.train.src=nowhere", cwd=tmp_path,
                   check=False)  # fmt: skip
    assert bad.returncode == 2 and "Traceback" not in bad.stdout + bad.stderr
    missing = dens_ocp("doctor", tmp_path / "nothing.yml", cwd=tmp_path, check=False)
    assert missing.returncode == 2 and "nothing.yml does not exist" in missing.stdout


def test_an_empty_lmdb_is_a_problem(data, tmp_path):
    write_lmdb(data / "train/data.0000.lmdb", [])
    assert any("dataset.train" in each for each in those(
        findings(small_config(data), tmp_path), PROBLEM))  # fmt: skip
