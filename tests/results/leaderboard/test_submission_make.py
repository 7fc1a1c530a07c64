"""``dens-ocp submission make``: what it writes, and when it writes nothing."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest
from fairchem.core.scripts import make_submission_file

from dens_ocp.results.leaderboard.boards import BOARDS
from dens_ocp.tools.cli import main
from tests.results.conftest import edit, lmdb_options, options, predict

NAMES = ("ids", "energy", "forces", "chunk_idx")


def make(task, out, *arguments) -> int:
    return main(["submission", "make", "--task", task, "--out", str(out), *arguments])


def load(path):
    with np.load(path) as file:
        return dict(file)


def by_fairchem(out, paths, board="OC20", relaxations=False, hybrid=False):
    make_submission_file.main(
        argparse.Namespace(
            **{split: str(path) for split, path in paths.items()},
            out_path=str(out), dataset=board, is2re_relaxations=relaxations, hybrid=hybrid,
        )
    )  # fmt: skip
    return load(out)


def same(ours, theirs):
    """Equal arrays; energies, which fairchem leaves in the shape (S, 1), but for that."""
    assert sorted(ours) == sorted(theirs)
    for name, array in ours.items():
        other = theirs[name]
        if name.endswith("_energy"):
            assert array.ndim == 1
            other = other.reshape(-1)
        np.testing.assert_array_equal(array, other)


def test_boards_are_fairchems():
    assert make_submission_file.SPLITS == {name: list(b.splits) for name, b in BOARDS.items()}


def test_s2ef(data, predictions, tmp_path, capsys):
    out = tmp_path / "folder" / "s2ef.npz"
    assert make("s2ef", out, *options(predictions), *lmdb_options(data.s2ef)) == 0
    assert capsys.readouterr().out.endswith("\nok\n")
    ours = load(out)
    same(ours, by_fairchem(tmp_path / "theirs.npz", predictions))
    assert ours["id_energy"].dtype == ours["id_forces"].dtype == np.float16
    assert [path.name for path in out.parent.iterdir()] == ["s2ef.npz"]
    assert main(["submission", "check", str(out), *lmdb_options(data.s2ef)]) == 0
    first = out.read_bytes()
    assert make("s2ef", out, *options(predictions), "--force") == 0
    assert out.read_bytes() == first


def test_oc22(data, tmp_path, capsys):
    paths = {"id": tmp_path / "id.npz", "ood": tmp_path / "ood.npz"}
    for (_, path), records in zip(paths.items(), data.records.values(), strict=False):
        np.savez(path, **predict(records, np.float32))
    out = tmp_path / "oc22.npz"
    assert make("s2ef", out, "--board", "oc22", *options(paths)) == 0
    same(load(out), by_fairchem(tmp_path / "theirs.npz", paths, "OC22"))
    assert load(out)["ood_energy"].dtype == np.float32
    edit(paths["ood"], lambda arrays: arrays.update(energy=arrays["energy"].astype(np.float16)))
    capsys.readouterr()
    assert make("s2ef", out, "--board", "OC22", *options(paths), "--force") == 2
    message = capsys.readouterr().err
    assert "ood: ood_energy has dtype float16: total energies need float32" in message


def test_is2re_from_trajectories_is_sorted(data, trajectories, tmp_path):
    out = tmp_path / "is2re.npz"
    assert make("is2re", out, *options(trajectories), *lmdb_options(data.is2re)) == 0
    ours = load(out)
    theirs = by_fairchem(tmp_path / "theirs.npz", trajectories, relaxations=True)
    assert sorted(ours) == sorted(theirs)
    for split, records in data.records.items():
        energies = {str(r.sid): float(np.float32(r.y - 1)) for r in records[:3]}
        ids = ours[f"{split}_ids"].tolist()
        assert ids == sorted(energies)
        assert ours[f"{split}_energy"].tolist() == [energies[sid] for sid in ids]
        assert ours[f"{split}_energy"].dtype == np.float32
        glob = dict(zip(theirs[f"{split}_ids"], theirs[f"{split}_energy"], strict=True))
        assert glob == energies


def test_is2re_from_predictions_and_hybrid(data, tmp_path, capsys):
    direct, frames = {}, {}
    for split, records in data.records.items():
        arrays = predict(records[:3])
        frames[split] = tmp_path / f"{split}-frames.npz"
        np.savez(frames[split], **arrays)
        direct[split] = tmp_path / f"{split}-direct.npz"
        ids = np.array([name.split("_")[0] for name in arrays["ids"]])
        np.savez(direct[split], ids=ids, energy=arrays["energy"])
    lmdbs = lmdb_options(data.is2re)
    assert make("is2re", tmp_path / "a.npz", *options(direct), *lmdbs) == 0
    assert make("is2re", tmp_path / "b.npz", *options(frames), "--hybrid", *lmdbs) == 0
    same(load(tmp_path / "a.npz"), load(tmp_path / "b.npz"))
    theirs = by_fairchem(tmp_path / "c.npz", frames, relaxations=True, hybrid=True)
    same(load(tmp_path / "b.npz"), theirs)
    capsys.readouterr()
    assert make("is2re", tmp_path / "d.npz", *options(frames), *lmdbs) == 2
    assert "3 id(s) are not in the test set: 1000_0, 1001_1, 1002_2" in capsys.readouterr().err


def test_is2rs_from_npz_and_trajectories(data, positions, trajectories, tmp_path):
    out, again = tmp_path / "is2rs.npz", tmp_path / "again.npz"
    lmdbs = lmdb_options(data.is2re)
    assert make("is2rs", out, *options(positions), *lmdbs) == 0
    same(load(out), by_fairchem(tmp_path / "theirs.npz", positions))
    assert make("is2rs", again, *options(trajectories), *lmdbs) == 0
    moved = load(again)
    assert sorted(moved) == sorted(load(out))
    np.testing.assert_allclose(moved["id_pos"][:8], data.records["id"][0].pos[:8], atol=1e-6)


def test_an_evaluation_folder(data, predictions, trajectories, positions, tmp_path, capsys):
    folder = tmp_path
    splits = {
        split: {"s2ef": {"src": str(path)}, "is2re": {"src": str(data.is2re[split])}}
        for split, path in data.s2ef.items()
    }
    (folder / "evaluation.json").write_text(json.dumps({"board": "OC20", "splits": splits}))
    (folder / "predictions").mkdir()
    for split in data.s2ef:
        predictions[split].rename(folder / "predictions" / f"{split}.npz")
        positions[split].rename(folder / "relaxations" / split / "relaxed_positions.npz")
    for task in ("s2ef", "is2re", "is2rs"):
        assert main(["submission", "make", str(folder), "--task", task]) == 0
        assert (folder / "submission" / f"{task}.npz").is_file()
    path = folder / "predictions" / "ood_cat.npz"
    edit(path, lambda arrays: arrays["ids"].__setitem__(0, "7_7"))  # known by evaluation.json
    assert main(["submission", "make", str(folder), "--task", "s2ef", "--force"]) == 2
    assert "ood_cat: 1 id(s) are not in the test set: 7_7" in capsys.readouterr().err
    path.unlink()
    assert main(["submission", "make", str(folder), "--task", "s2ef", "--force"]) == 2
    assert "requires 4 splits; these are missing: --ood-cat" in capsys.readouterr().err
    (folder / "evaluation.json").write_text("{")
    assert main(["submission", "make", str(folder), "--task", "s2ef"]) == 2
    assert "evaluation.json cannot be read" in capsys.readouterr().err


def with_all_atoms(data, predictions):
    for split, path in predictions.items():
        records = sorted(data.records[split], key=lambda r: f"{r.sid}_{r.fid}")
        forces = np.concatenate([r.force.numpy() for r in records]).astype(np.float16)
        chunk_idx = np.cumsum([r.natoms for r in records])[:-1]
        edit(path, lambda arrays: None, forces=forces, chunk_idx=chunk_idx)


def test_forces_of_all_atoms_are_reduced_to_free_ones(data, predictions, tmp_path, capsys):
    with_all_atoms(data, predictions)
    # in another order than the LMDB's
    with np.load(predictions["id"]) as file:
        pieces = np.split(file["forces"], file["chunk_idx"])[::-1]
        ids, energy = file["ids"][::-1], file["energy"][::-1]
    np.savez(
        predictions["id"], ids=ids, energy=energy, forces=np.concatenate(pieces),
        chunk_idx=np.cumsum([len(each) for each in pieces])[:-1],
    )  # fmt: skip
    out = tmp_path / "a.npz"
    assert make("s2ef", out, *options(predictions), *lmdb_options(data.s2ef)) == 0
    assert "forces of all atoms were reduced" in capsys.readouterr().out
    written = load(out)
    records = {f"{r.sid}_{r.fid}": r for r in data.records["id"]}
    for name, forces in zip(
        written["id_ids"], np.split(written["id_forces"], written["id_chunk_idx"]), strict=True
    ):
        record = records[name]
        np.testing.assert_array_equal(forces, record.force[record.fixed == 0].half().numpy())
    both = ["--atoms", "all", *lmdb_options(data.s2ef)]
    assert make("s2ef", tmp_path / "b.npz", *options(predictions), *both) == 0
    assert len(load(tmp_path / "b.npz")["ood_cat_forces"]) == 4 * 9


def test_forces_of_all_atoms_from_free_ones(data, predictions, tmp_path, capsys):
    out, lmdbs = tmp_path / "a.npz", lmdb_options(data.s2ef)
    assert make("s2ef", out, *options(predictions), "--atoms", "all") == 2
    assert "only the LMDB shows" in capsys.readouterr().err
    assert make("s2ef", out, *options(predictions), "--atoms", "all", *lmdbs) == 2
    assert "has the forces of free atoms only" in capsys.readouterr().err
    assert not out.exists()
    assert make("s2ef", out, *options(predictions), "--atoms", "all", "--fill-fixed", *lmdbs) == 0
    record = data.records["id"][0]
    first = load(out)["id_forces"][: record.natoms]
    assert (first[record.fixed.numpy() == 1] == 0).all()
    with np.load(predictions["id"]) as file:
        np.testing.assert_array_equal(first[record.fixed.numpy() == 0], file["forces"][:5])


DAMAGES = {
    "NaN": (lambda a: a["energy"].__setitem__((1, 0), np.nan), "NaN or infinity in 1 row(s)"),
    "overflow": (lambda a: a["forces"].__imul__(np.float16(6e4)), "float16 is often an overflow"),
    "forces cut off": (lambda a: a.update(forces=a["forces"][:-2]), "(3, expected 5)"),
    "duplicate": (lambda a: a["ids"].__setitem__(0, a["ids"][1]), "more than once"),
    "foreign id": (lambda a: a["ids"].__setitem__(0, "7_7"), "not in the test set: 7_7"),
    "no forces": (lambda a: a.pop("forces"), "has no 'forces'"),
    "objects": (lambda a: a.update(energy=a["energy"].astype(object)), "cannot be read"),
    "chunks": (lambda a: a.update(chunk_idx=a["chunk_idx"][1:]), "has 2 entries for 4"),
    "flat": (lambda a: a.update(forces=a["forces"].reshape(-1)), "expected (atoms, 3)"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_nothing_is_written_of_damaged_predictions(name, data, predictions, tmp_path, capsys):
    change, message = DAMAGES[name]
    edit(predictions["ood_cat"], change)
    out = tmp_path / "out" / "a.npz"
    assert make("s2ef", out, *options(predictions), *lmdb_options(data.s2ef)) == 2
    error = capsys.readouterr().err
    assert "was not written" in error and "ood_cat: " in error and message in error
    assert list(out.parent.iterdir()) == []


def test_problems_of_all_splits_are_listed(data, predictions, tmp_path, capsys):
    edit(predictions["id"], DAMAGES["no forces"][0])
    predictions["ood_both"].write_text("no npz")
    assert make("s2ef", tmp_path / "a.npz", *options(predictions)) == 2
    error = capsys.readouterr().err
    assert "2 problem(s)" in error and "id: " in error and "ood_both: " in error


def test_splits_swapped_missing_or_given_twice(data, predictions, tmp_path, capsys):
    out, lmdbs = tmp_path / "a.npz", lmdb_options(data.s2ef)
    swapped = {**predictions, "id": predictions["ood_cat"], "ood_cat": predictions["id"]}
    assert make("s2ef", out, *options(swapped), *lmdbs) == 2
    assert "are ids of ood_cat: are the splits swapped?" in capsys.readouterr().err
    twice = {**predictions, "id": predictions["ood_cat"]}
    assert make("s2ef", out, *options(twice)) == 2
    assert "is also given for id" in capsys.readouterr().err
    copied = {**predictions, "id": tmp_path / "copy.npz"}
    copied["id"].write_bytes(predictions["ood_cat"].read_bytes())
    assert make("s2ef", out, *options(copied)) == 2
    assert "id and ood_cat have the same ids" in capsys.readouterr().err
    one = {"id": predictions["id"]}
    assert make("s2ef", out, *options(one)) == 2
    assert "these are missing: --ood-ads, --ood-cat, --ood-both" in capsys.readouterr().err
    assert make("s2ef", out, *options({**predictions, "ood": predictions["id"]})) == 2
    assert "OC20 has no split 'ood'" in capsys.readouterr().err
    assert make("s2ef", out, *options({**predictions, "id": tmp_path / "no.npz"})) == 2
    assert "--id: " in capsys.readouterr().err
    assert not out.exists()


def test_an_existing_file_is_kept(predictions, tmp_path, capsys):
    out = tmp_path / "a.npz"
    out.write_text("precious")
    assert make("s2ef", out, *options(predictions)) == 2
    assert "--force" in capsys.readouterr().err
    edit(predictions["ood_cat"], DAMAGES["NaN"][0])
    assert make("s2ef", out, *options(predictions), "--force") == 2
    assert out.read_text() == "precious"


def test_wrong_options(predictions, trajectories, tmp_path, capsys):
    out = tmp_path / "a.npz"
    for arguments, message in (
        (["--out", str(out)], "give an evaluation folder, or --id PATH --ood-ads PATH"),
        ([str(tmp_path / "no"), "--out", str(out)], "is not a folder"),
        ([str(tmp_path)], "has no results of s2ef: no predictions/<split>.npz"),
        ([str(tmp_path), *options(predictions)], "or the paths of the splits"),
        (options(predictions), "--out is missing"),
        ([*options(predictions), "--out", str(tmp_path / "a.txt")], "must end in .npz"),
        ([*options(trajectories), "--out", str(out)], "is a folder; s2ef needs the npz file"),
    ):
        assert main(["submission", "make", "--task", "s2ef", *arguments]) == 2
        assert message in capsys.readouterr().err


def test_unfinished_relaxations(data, trajectories, tmp_path, capsys):
    out, lmdbs = tmp_path / "a.npz", lmdb_options(data.is2re)
    folder = trajectories["ood_ads"]
    (folder / "2000.traj").rename(folder / "2000.traj_tmp")
    (folder / "2001.traj").write_bytes((folder / "2001.traj").read_bytes()[:40])
    (folder / "2002.traj").unlink()
    assert make("is2re", out, *options(trajectories), *lmdbs) == 2
    error = capsys.readouterr().err
    assert "3 relaxation(s) did not finish (2000: 2000.traj_tmp: its relaxation was" in error
    assert "2001: 2001.traj is damaged" in error and "2002: no trajectory" in error
    last = [*options(trajectories), *lmdbs, "--unfinished", "last-frame"]
    assert make("is2re", out, *last) == 2  # two have no frame
    error = capsys.readouterr().err
    assert "2 relaxation(s) did not finish (2001" in error and "relax them" in error
    for sid in ("2001", "2002"):
        (folder / f"{sid}.traj").write_bytes((folder / "2000.traj_tmp").read_bytes())
    assert make("is2re", out, *last) == 0
    assert "ood_ads: last frames were taken: 1 relaxation(s)" in capsys.readouterr().out
    assert load(out)["ood_ads_ids"].tolist() == ["2000", "2001", "2002"]


@pytest.mark.parametrize("ours", [True, False])
def test_unfinished_relaxations_without_the_test_set(data, trajectories, tmp_path, capsys, ours):
    """A run that was killed: a system with frames, and one that was not reached."""
    out, folder = tmp_path / "a.npz", trajectories["ood_ads"]
    last = [*options(trajectories), "--unfinished", "last-frame"]
    name = ".2000.traj_unfinished" if ours else "2000.traj_tmp"
    (folder / "2000.traj").rename(folder / name)
    content = (folder / "2002.traj").read_bytes()
    (folder / "2002.traj").unlink()
    if ours:
        (folder / "relaxations.json").write_text('{"weights": "a", "systems": 3}')
    assert make("is2re", out, *last) == 2
    error = capsys.readouterr().err
    assert (
        "holds trajectories of only 2 of 3 systems" if ours else "only the test set shows"
    ) in error
    assert "--lmdb" in error and not out.exists()
    lmdbs = lmdb_options(data.is2re)
    assert make("is2re", out, *last, *lmdbs) == 2
    assert "(2002: no trajectory)" in capsys.readouterr().err and not out.exists()

    (folder / "2002.traj").write_bytes(content)
    assert make("is2re", out, *options(trajectories)) == 2  # refused without being asked for
    assert name in capsys.readouterr().err
    assert make("is2re", out, *last, *([] if ours else lmdbs)) == 0
    assert f"1 relaxation(s) did not finish (2000: {name}" in capsys.readouterr().out
    assert load(out)["ood_ads_ids"].tolist() == ["2000", "2001", "2002"]


def test_relaxations_with_a_large_force_are_named(trajectories, tmp_path, capsys):
    """The force on fixed atoms (9 eV/A in these frames) does not count."""
    out = tmp_path / "a.npz"
    assert make("is2re", out, *options(trajectories), "--fmax", "0.005") == 0
    assert "id: 3 of 3 last frames have a force above 0.005 eV/A: 1000" in capsys.readouterr().out
    assert make("is2re", out, *options(trajectories), "--fmax", "0.02", "--force") == 0
    assert "last frames" not in capsys.readouterr().out
