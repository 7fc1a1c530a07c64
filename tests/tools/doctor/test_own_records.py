"""``dens-ocp doctor`` finds what training would stop at, by the same functions."""

from __future__ import annotations

import pytest
import torch

from dens_ocp.tools.config_model import build_model
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING
from dens_ocp.tools.doctor.training import check_step
from tests.lmdbs import s2ef_records, write_lmdb, write_s2ef
from tests.runs import small_config
from tests.tools.doctor.test_data import findings, those

BAD = 6


@pytest.fixture
def config_of(tmp_path):
    """``config_of(change)``: a config whose training set has changed records."""

    def made(change):
        write_s2ef(tmp_path / "train", 10)
        records = s2ef_records(10)
        for index, record in enumerate(records):
            change(record, index)
        write_lmdb(tmp_path / "train/data.0000.lmdb", records)
        config = small_config(tmp_path)
        del config["dataset"]["val"]
        config["model"] = {**config["model"], "num_layers": 1}
        return config

    return made


def in_one(change):
    return lambda record, index: change(record) if index == BAD else None


CASES = {
    "atomic number": (in_one(lambda r: r.atomic_numbers.fill_(92)), "--model.max_num_elements=93"),
    "no cell": (in_one(lambda r: r.__delitem__("cell")), "has no cell"),
    "natoms": (in_one(lambda r: r.__setitem__("natoms", 8)), "natoms is 8, expected 9"),
    "ragged": (lambda r, i: r.__setitem__("extra", torch.zeros(2, 4 + (i == BAD))), "extra is a"),
    "pbc": (lambda r, i: r.__setitem__("pbc", torch.tensor([[True, True, i != BAD]])), "has pbc"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_records_are_problems(config_of, tmp_path, case):
    change, words = CASES[case]
    found = findings(config_of(change), tmp_path, everything=True)
    (problem,) = those(found, PROBLEM)
    assert words in problem and f"index {BAD}" in problem and "1 of 10 records" in problem
    assert any("forward and backward of 2 records" in each for each in those(found, OK))


def test_other_forms_are_no_problem(config_of, tmp_path):
    def change(record, index):
        record.pos, record.cell = record.pos.double(), record.cell[0].numpy()
        record.y = torch.tensor([record.y]) if index % 2 else torch.tensor(record.y)
        del record.natoms

    assert those(findings(config_of(change), tmp_path, everything=True), PROBLEM) == []


def test_a_model_that_gives_no_numbers(config_of, tmp_path):
    config = config_of(lambda record, index: None)
    model = build_model(config["model"])
    records = s2ef_records(3)
    for record in records:
        record.energy, record.forces = record.y, record.force
    (good,) = check_step(model, records, "dataset.train")
    assert good.status == OK and "(18 atoms)" in good.text and "energy, forces, noise" in good.text
    with torch.no_grad():
        model.sphere_embedding.weight.fill_(float("nan"))
    (bad,) = check_step(model, records, "dataset.train")
    assert bad.status == PROBLEM and "energy" in bad.text and "not finite" in bad.text


def test_kcal_are_noticed(config_of, tmp_path):
    found = findings(config_of(lambda r, i: r.__setitem__("force", 23 * r.force)), tmp_path)
    assert any("kcal/mol" in each for each in those(found, WARNING))
