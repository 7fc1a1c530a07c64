"""Scores: by hand, against fairchem's Evaluator, on real data."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from fairchem.core.modules.evaluator import Evaluator

from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.leaderboard.boards import OC20, OC22, Board
from dens_ocp.results.scores import scores as scores_module
from dens_ocp.results.scores.prediction_files import Predictions, read_predictions
from dens_ocp.results.scores.score_tables import score_json, score_latex, score_numbers, score_table
from dens_ocp.results.scores.scores import (
    IS2REScores,
    S2EFScores,
    is2re_scores,
    is2rs_scores,
    s2ef_scores,
)
from dens_ocp.tools.cli import main
from tests.results.conftest import lmdb_options, options


def structure(name, energy=None, forces=None, fixed=(), relaxed=None, energy_relaxed=None):
    count = len(forces if forces is not None else relaxed if relaxed is not None else [0])
    mask = np.zeros(count, bool)
    mask[list(fixed)] = True
    return Structure(
        id=name, sid=name.partition("_")[0], atomic_numbers=np.ones(count, int),
        tags=np.ones(count, int), fixed=mask, pos=np.zeros((count, 3)), cell=10 * np.eye(3),
        energy=energy, forces=None if forces is None else np.array(forces, float),
        energy_relaxed=energy_relaxed,
        pos_relaxed=None if relaxed is None else np.array(relaxed, float),
    )  # fmt: skip


TRUE = [
    structure("1_0", 1.0, [[9, 9, 9], [1, 0, 0]], fixed=[0]),
    structure("2_0", 2.0, [[0, 2, 0], [0, 0, 0.1]]),
    structure("3_0", 3.0, [[0, 0, 1]]),
]


def test_s2ef_by_hand():
    predictions = Predictions(
        ["3_0", "1_0", "2_0"],
        np.array([3.015, 1.019, 1.5], np.float64),
        [
            np.array([[0, 0, 1.031]]),  # EFwT fails by the force
            np.array([[1.029, 0.02, 0]]),  # within
            np.array([[0, 0, 3], [0, 0, 0.1]]),  # fails by both
        ],
    )
    result = s2ef_scores(predictions, TRUE)
    assert (result.structures, result.atoms) == (3, 4)
    assert result.energy_mae_meV == pytest.approx((15 + 19 + 500) / 3)
    assert result.force_mae_meV_per_A == pytest.approx((31 + 29 + 20 + 2000 + 3000) / 12)
    cosine = 1.029 / np.hypot(1.029, 0.02)
    assert result.force_cosine == pytest.approx((1 + cosine + 0 + 1) / 4)
    assert result.efwt_percent == pytest.approx(100 / 3)


def test_is2re_by_hand():
    structures = [structure(str(n), energy_relaxed=float(n)) for n in range(4)]
    result = is2re_scores({"3": 3.0, "0": 0.019, "1": 0.979, "2": 2.5}, structures)
    assert result.structures == 4
    assert result.energy_mae_meV == pytest.approx((0 + 19 + 21 + 500) / 4)
    assert result.ewt_percent == 50.0


def test_is2rs_by_hand():
    """Fixed atoms do not count; the way across the boundary is the shorter one."""
    structures = [
        structure("1", relaxed=[[9, 9, 9], [9.9, 0, 0], [1, 1, 1]], fixed=[0]),
        structure("2", relaxed=[[1, 1, 1]]),
    ]
    moved = {
        "1": np.array([[0, 0, 0], [0.1, 0, 0], [1, 1, 1.301]]),
        "2": np.array([[1, 1, 1.0355]]),
    }
    result = is2rs_scores(moved, structures, thresholds=(0.1, 0.3))
    assert result.mean_distance_A == pytest.approx((0.2505 + 0.0355) / 2)
    assert result.dwt_percent == {0.1: 50.0, 0.3: 100.0}
    # thresholds 0.01 ... 0.499: 0.251 to 0.499 lie above 0.2505, 0.036 to 0.499 above 0.0355
    assert result.average_dwt_percent == pytest.approx(100 * (249 + 464) / (2 * 490))


def random_split(count=70, seed=0):
    """Structures with random labels and noisy predictions, some of them close."""
    generator = np.random.default_rng(seed)
    structures, energies, forces, positions = [], [], [], []
    for index in range(count):
        natoms = int(generator.integers(2, 9))
        noise = 0.02 if index % 2 else 0.3
        labels = generator.normal(size=(natoms, 3))
        fixed = generator.random(natoms) < 0.4
        fixed[0] = False
        relaxed = 8 * generator.random((natoms, 3))
        cell = 6 * np.eye(3) + generator.normal(size=(3, 3))
        structures.append(
            replace(
                structure(f"{index}_1", float(generator.normal()), labels, relaxed=relaxed),
                fixed=fixed, cell=cell, energy_relaxed=float(generator.normal()),
            )
        )  # fmt: skip
        energies.append(structures[-1].energy + noise * generator.normal() / 2)
        forces.append((labels + noise * generator.normal(size=labels.shape) / 2)[~fixed])
        step = generator.normal(size=labels.shape) * noise
        positions.append(relaxed + step + generator.integers(-1, 2, (natoms, 3)) @ cell)
    ids = [each.id for each in structures]
    return structures, Predictions(ids, np.array(energies), forces), positions


def everything_at_once(structures, predictions, positions):
    """fairchem's Evaluator on one batch with all structures."""
    free = [torch.tensor(each.free) for each in structures]
    natoms = torch.tensor([int(each.sum()) for each in free])
    forces = torch.tensor(np.concatenate(predictions.forces))
    labels = torch.tensor(np.concatenate([each.forces[each.free] for each in structures]))
    energy = torch.tensor([each.energy for each in structures], dtype=torch.float64)
    relaxed = torch.tensor([each.energy_relaxed for each in structures], dtype=torch.float64)
    predicted = torch.tensor(predictions.energy.astype(np.float64))
    moved = [p[s.free] for p, s in zip(positions, structures, strict=True)]
    goal = [s.pos_relaxed[s.free] for s in structures]
    s2ef = Evaluator("s2ef").eval(
        {"energy": predicted, "forces": forces, "natoms": natoms},
        {"energy": energy, "forces": labels, "natoms": natoms},
    )
    is2re = Evaluator("is2re").eval({"energy": predicted}, {"energy": relaxed})
    is2rs = Evaluator("is2rs").eval(
        {"positions": torch.tensor(np.concatenate(moved)), "natoms": natoms},
        {
            "positions": torch.tensor(np.concatenate(goal)),
            "natoms": natoms,
            "cell": torch.tensor(np.stack([each.cell for each in structures])),
            "pbc": torch.tensor([True, True, True]),
        },
    )
    return tuple({key: value["metric"] for key, value in m.items()} for m in (s2ef, is2re, is2rs))


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_fairchems_evaluator_agrees(chunk, monkeypatch):
    monkeypatch.setattr(scores_module, "CHUNK", chunk)
    structures, predictions, positions = random_split()
    s2ef, is2re, is2rs = everything_at_once(structures, predictions, positions)
    ours = s2ef_scores(predictions, structures)
    assert ours.energy_mae_meV == pytest.approx(1000 * s2ef["energy_mae"], rel=1e-9)
    assert ours.force_mae_meV_per_A == pytest.approx(1000 * s2ef["forces_mae"], rel=1e-9)
    assert ours.force_cosine == pytest.approx(s2ef["forces_cosine_similarity"], abs=1e-6)
    assert ours.efwt_percent == pytest.approx(100 * s2ef["energy_forces_within_threshold"])
    assert 0 < ours.efwt_percent < 100
    energies = dict(zip((s.sid for s in structures), predictions.energy, strict=True))
    relaxed = is2re_scores(energies, structures)
    assert relaxed.energy_mae_meV == pytest.approx(1000 * is2re["energy_mae"], rel=1e-9)
    assert relaxed.ewt_percent == pytest.approx(100 * is2re["energy_within_threshold"])
    moved = dict(zip((s.sid for s in structures), positions, strict=True))
    placed = is2rs_scores(moved, structures)
    average = 100 * is2rs["positions_average_distance_within_threshold"]
    assert placed.average_dwt_percent == pytest.approx(average, rel=1e-9)
    assert 0 < placed.average_dwt_percent < 100


def test_without_anything_of_fairchem():
    """The definitions, written out in NumPy."""
    structures, predictions, _ = random_split(seed=1)
    true = np.concatenate([each.forces[each.free] for each in structures])
    forces = np.concatenate(predictions.forces)
    energy = np.abs(predictions.energy - [each.energy for each in structures])
    lengths = np.linalg.norm(true, axis=1) * np.linalg.norm(forces, axis=1)
    ours = s2ef_scores(predictions, structures)
    assert ours.energy_mae_meV == pytest.approx(1000 * energy.mean(), rel=1e-9)
    assert ours.force_mae_meV_per_A == pytest.approx(1000 * np.abs(forces - true).mean(), rel=1e-9)
    assert ours.force_cosine == pytest.approx(((forces * true).sum(1) / lengths).mean(), abs=1e-6)


def test_real_data(shared):
    """200 frames of OC20 with noisy labels as predictions, in float16."""
    source = shared / "data/oc20_alloys/s2ef_val"
    found = open_structures({"src": str(source)})
    structures = [found[index] for index in range(min(200, len(found)))]
    generator = np.random.default_rng(0)
    predictions = Predictions(
        [each.id for each in structures],
        np.array([each.energy for each in structures], np.float16),
        [
            (s.forces[s.free] + 0.01 * generator.normal(size=(s.free.sum(), 3))).astype(np.float16)
            for s in structures
        ],
    )
    plain = replace(
        predictions,
        energy=predictions.energy.astype(np.float64),
        forces=[each.astype(np.float64) for each in predictions.forces],
    )
    relaxed = [replace(s, pos_relaxed=s.pos, energy_relaxed=0.0) for s in structures]
    expected, _, _ = everything_at_once(relaxed, plain, [s.pos for s in structures])
    ours = s2ef_scores(predictions, structures)
    assert ours.energy_mae_meV == pytest.approx(1000 * expected["energy_mae"], rel=1e-6)
    assert ours.force_mae_meV_per_A == pytest.approx(1000 * expected["forces_mae"], rel=1e-6)
    assert ours.force_cosine == pytest.approx(expected["forces_cosine_similarity"], abs=1e-6)
    assert ours.efwt_percent == 100 * expected["energy_forces_within_threshold"]


def test_forces_of_all_atoms_are_scored_on_free_ones():
    structures, predictions, _ = random_split()
    everything = [each.forces + 0.1 for each in structures]
    free = [f[s.free] for f, s in zip(everything, structures, strict=True)]
    of_all = s2ef_scores(replace(predictions, forces=everything), structures)
    assert of_all == s2ef_scores(replace(predictions, forces=free), structures)
    assert of_all.force_mae_meV_per_A == pytest.approx(100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: replace(p, ids=["1_0", "2_0", "4_0"]), r"1 are not predicted \(3_0\) and 1 are"),
        (lambda p: replace(p, ids=["1_0", "1_0", "3_0"]), "1_0 is predicted more than once"),
        (lambda p: replace(p, forces=None), "no forces"),
        (
            lambda p: replace(p, forces=p.forces[:1] * 3),
            "1 forces are predicted for a structure of 2 atoms, 2 of them free",
        ),
    ],
)
def test_what_does_not_fit_the_labels(change, message):
    forces = [each.forces[each.free] for each in TRUE]
    predictions = Predictions([each.id for each in TRUE], np.zeros(3), forces)
    with pytest.raises(DensError, match=message):
        s2ef_scores(change(predictions), TRUE)


def test_labels_that_cannot_be_scored():
    test = structure("1", relaxed=[[0, 0, 0]])
    with pytest.raises(DensError, match="no energy_relaxed label"):
        is2re_scores({"1": 1.0}, [test])
    with pytest.raises(DensError, match="more than once"):
        is2rs_scores({"1": np.zeros((1, 3))}, [test, test])
    with pytest.raises(DensError, match="has 1 atoms, but its relaxed positions are of 2"):
        is2rs_scores({"1": np.zeros((2, 3))}, [test])
    with pytest.raises(DensError, match="no free atom"):
        is2rs_scores({"1": np.zeros((1, 3))}, [replace(test, fixed=np.array([True]))])
    with pytest.raises(DensError, match="no structure"):
        is2re_scores({}, [])


SCORES = {
    "s2ef": {
        "id": S2EFScores(10, 100, 391.6, 20.666, 0.5, 1.0),
        "ood": S2EFScores(30, 200, 533.0, 27.11, 0.6, 3.0),
    },
    "is2re": {"id": IS2REScores(3, 951.2, 5.0), "ood": IS2REScores(4, 1282.0, 7.0)},
}


def test_tables():
    numbers = score_numbers(SCORES)
    assert numbers["s2ef"]["average"]["energy_mae_meV"] == pytest.approx(462.3)
    assert numbers["s2ef"]["average"]["structures"] == 40
    assert json.loads(score_json(SCORES, OC22)) == {"board": "OC22", "scores": numbers}
    lines = score_table(SCORES, OC22).splitlines()
    assert lines[0] == "OC22 S2EF"
    assert lines[5].split() == ["Average", "40", "300", "462.3", "23.89", "0.550", "2.00"]
    latex = score_latex(SCORES, OC22, "EqV2 & DeNS")
    assert r"EqV2 \& DeNS & 391.6 & 533.0 & 20.67 & 27.11 & 951 & 1282 \\" in latex
    assert r"Model & ID & OOD & ID & OOD & ID & OOD \\" in latex
    latex = score_latex({"s2ef": SCORES["s2ef"]}, OC20)
    assert r"this model & 462 & 23.9 & - \\" in latex
    other = Board("scores", ("id", "ood"), ("id", "ood"), "float32")
    assert r"this model & 462.3 & 23.9 & 1116.6 \\" in score_latex(SCORES, other)
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 2


def test_the_command(data, predictions, trajectories, positions, tmp_path, capsys):
    files = ["--json", str(tmp_path / "a.json"), "--latex", str(tmp_path / "a.tex")]
    given = [*options(predictions), *lmdb_options(data.s2ef)]
    assert main(["score", "--task", "s2ef", *given, *files]) == 0
    assert "OOD Ads" in capsys.readouterr().out
    written = json.loads((tmp_path / "a.json").read_text())["scores"]["s2ef"]
    expected = s2ef_scores(
        read_predictions(predictions["ood_cat"]),
        open_structures({"src": str(data.s2ef["ood_cat"])}),
    )
    assert written["ood_cat"]["energy_mae_meV"] == expected.energy_mae_meV
    assert "this model" in (tmp_path / "a.tex").read_text()
    # y_relaxed is y - 0.5, the last frame's energy y - 1
    given = ["--id", str(trajectories["id"]), "--lmdb", f"id={data.is2re['id']}"]
    assert main(["score", "--task", "is2re", *given]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == ["Average", "3", "500.0", "0.00"]
    # pos_relaxed is 0.05 along all axes away from pos for free atoms, these are 0.05 up
    given = ["--id", str(positions["id"]), "--lmdb", f"id={data.is2re['id']}"]
    assert main(["score", "--task", "is2rs", *given]) == 0
    row = capsys.readouterr().out.splitlines()[-1].split()
    assert row[-1] == f"{0.05 * 2**0.5:.3f}" and "100.00" in row
    # an evaluation folder names the data sets
    folder = tmp_path / "evaluation"
    (folder / "predictions").mkdir(parents=True)
    predictions["id"].rename(folder / "predictions" / "id.npz")
    splits = {split: {"s2ef": {"src": str(path)}} for split, path in data.s2ef.items()}
    (folder / "evaluation.json").write_text(json.dumps({"board": None, "splits": splits}))
    assert main(["score", str(folder), "--task", "s2ef", "--json", str(tmp_path / "b.json")]) == 0
    again = json.loads((tmp_path / "b.json").read_text())["scores"]["s2ef"]
    assert again["id"] == again["average"] == written["id"]
    predictions["id"] = folder / "predictions" / "id.npz"
    for arguments, message in (
        (["--id", str(predictions["id"])], "id has results but no LMDB with labels"),
        (["--id", str(predictions["id"]), "--lmdb", f"id={data.s2ef['ood_ads']}"], "id: predict"),
    ):
        assert main(["score", "--task", "s2ef", *arguments]) == 2
        assert message in capsys.readouterr().err
