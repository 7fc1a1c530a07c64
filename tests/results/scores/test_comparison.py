"""Evaluations beside each other."""

import json

import pytest

from dens_ocp.tools.cli import main


def write(folder, force, dens, src="data/val", fmax=0.02, split="val", **more):
    folder.mkdir(parents=True)
    numbers = {"structures": 6, "force_mae_meV_per_A": force, **more}
    scores = {"s2ef": {split: numbers, "average": numbers}}
    (folder / "scores.json").write_text(json.dumps({"board": "scores", "scores": scores}))
    described = {
        "dens": dens,
        "splits": {split: {"s2ef": {"src": src}, "relax_cell": None}},
        "jobs": {"relax_cell-val": {"relaxation": {"fmax": fmax, "shards": 1}}, "predict-val": {}},
    }
    (folder / "evaluation.json").write_text(json.dumps(described))
    return str(folder)


def compare(capsys, *words):
    status = main(["compare", *words])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_with_and_without_dens(tmp_path, capsys):
    without = write(tmp_path / "plain", 80.0, False, stress_mae_meV_per_A3=4.0)
    with_dens = write(tmp_path / "eqV2_dens", 60.0, True, stress_mae_meV_per_A3=5.0)
    files = ["--json", str(tmp_path / "c.json"), "--latex", str(tmp_path / "c.tex")]
    status, said = compare(capsys, without, with_dens, *files)
    assert status == 0
    header, _, *rows = said.splitlines()
    assert "plain (without DeNS)" in header and "eqV2_dens (with DeNS)" in header
    cells = {tuple(row.split()[:4]): row.split()[-3:] for row in rows}
    assert cells["s2ef", "val", "force", "MAE"] == ["80.00", "60.00", "-25.0"]
    assert cells["s2ef", "val", "stress", "MAE"] == ["4.000", "5.000", "+25.0"]
    assert "average" not in said, "of one split it says the same again"
    content = json.loads((tmp_path / "c.json").read_text())
    assert [each["dens"] for each in content["evaluations"]] == [False, True]
    assert content["scores"][1] == {
        "task": "s2ef", "split": "val", "score": "force_mae_meV_per_A", "values": [80.0, 60.0],
        "changes_percent": [pytest.approx(-25)],
    }  # fmt: skip
    assert r"eqV2\_dens (with DeNS)" in (tmp_path / "c.tex").read_text()


def test_three_and_scores_that_one_lacks(tmp_path, capsys):
    folders = [write(tmp_path / "a" / "x", 80.0, None), write(tmp_path / "b" / "x", 40.0, True),
               write(tmp_path / "c", 20.0, True, efwt_percent=3.0)]  # fmt: skip
    status, said = compare(capsys, *folders)
    assert status == 0 and f"{tmp_path}/a/x " in said and "EFwT" not in said
    row = next(line for line in said.splitlines() if "force MAE" in line)
    assert row.split()[-5:] == ["80.00", "40.00", "20.00", "-50.0", "-75.0"]


def test_mistakes(tmp_path, capsys):
    first = write(tmp_path / "first", 80.0, True)
    others = {
        "data of val, s2ef is data/val in one and other in the other":
            write(tmp_path / "data", 80.0, True, src="other"),
        "evaluation.relaxation.fmax is 0.02 in one and 0.05 in the other":
            write(tmp_path / "fmax", 80.0, True, fmax=0.05),
        "no split in common: first has val (s2ef); split has test (s2ef)":
            write(tmp_path / "split", 80.0, True, split="test"),
        "given twice": first,
        "has no scores.json": str(tmp_path),
    }  # fmt: skip
    for words, other in others.items():
        status, said = compare(capsys, first, other)
        assert status == 2 and words in said, words
    assert "give two evaluation folders" in compare(capsys, first)[1]
    (tmp_path / "data" / "scores.json").write_text("{")
    assert "cannot be read" in compare(capsys, first, str(tmp_path / "data"))[1]
