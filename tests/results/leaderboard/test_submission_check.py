"""The checker of leaderboard files, on files written by hand: right ones, and damaged ones."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from dens_ocp.errors import DensError
from dens_ocp.results import leaderboard
from dens_ocp.results.leaderboard.boards import OC20, OC22
from dens_ocp.results.leaderboard.reference import read_references
from dens_ocp.results.leaderboard.submission_checker import check_submission
from dens_ocp.tools.cli import main
from tests.results.conftest import edit, good_submission, lmdb_options


@pytest.fixture(scope="module")
def references(data):
    return {
        "s2ef": read_references(data.s2ef, progress=False),
        "is2re": read_references(data.is2re, progress=False),
        "is2rs": read_references(data.is2re, progress=False),
    }


@pytest.mark.parametrize("task", ["s2ef", "is2re", "is2rs"])
def test_right_files(task, data, references, tmp_path):
    path = good_submission(tmp_path / "a.npz", data, task)
    for known in ({}, references[task]):
        report = check_submission(path, references=known)
        assert (report.problems, report.notes) == ([], [])
        assert (report.task, report.board) == (task, OC20)
        assert report.splits["ood_cat"].structures == (4 if task == "s2ef" else 3)


def test_the_summary_by_hand(tmp_path):
    forces = np.array([[3, 4, 0], [1, 0, 0], [0, 0, 2]], np.float32)
    arrays = {}
    for start, split in enumerate(OC22.splits):
        arrays |= {
            f"{split}_ids": np.array([f"{start}_1", f"{start}_2"]),
            f"{split}_energy": np.array([-300.0, -100.0], np.float32),
            f"{split}_forces": forces,
            f"{split}_chunk_idx": np.array([1]),
        }
    np.savez(tmp_path / "a.npz", **arrays)
    report = check_submission(tmp_path / "a.npz")
    assert report.ok and report.board is OC22
    summary = report.splits["ood"]
    assert (summary.structures, summary.atoms) == (2, 3)
    assert summary.energy == (-300.0, -200.0, -100.0)
    assert summary.largest_force == 5.0
    assert summary.dtypes == ("float32", "float32")


def put(name, value):
    return lambda arrays: arrays.update({name: value(arrays[name])})


def drop(*names):
    return lambda arrays: [arrays.pop(name) for name in names]


def at(index, value):
    def change(array):
        array = array.copy()
        array[index] = value
        return array

    return change


def swap(arrays):
    for name in ("ids", "energy", "forces", "chunk_idx"):
        one, two = f"ood_ads_{name}", f"ood_cat_{name}"
        arrays[one], arrays[two] = arrays[two], arrays[one]


def twice(arrays):
    for name in ("ids", "energy", "forces", "chunk_idx"):
        arrays[f"ood_ads_{name}"] = arrays[f"id_{name}"]


def without_last(arrays):
    last = arrays["id_chunk_idx"][-1]
    for name, end in (("ids", -1), ("energy", -1), ("forces", last), ("chunk_idx", -1)):
        arrays[f"id_{name}"] = arrays[f"id_{name}"][:end]


S2EF = [f"id_{name}" for name in ("ids", "energy", "forces", "chunk_idx")]

# what is done to a right file -> what is said; [lmdb]: only known from the test set
DAMAGES = {
    "split missing": (drop(*S2EF), "id: the split is missing"),
    "array missing": (drop("ood_cat_chunk_idx"), "ood_cat: ood_cat_chunk_idx missing"),
    "unknown array": (
        lambda arrays: arrays.update(id_energies=np.zeros(4)),
        "id_energies is not an array of OC20 s2ef, did you mean 'id_energy'?",
    ),
    "same file twice": (twice, "id and ood_ads have the same ids (1000_0, 1001_1, 1002_2 and 1"),
    "swapped [lmdb]": (
        swap,
        "ood_ads: 4 id(s) are not in the test set: 3000_0, 3001_1, 3002_2 and 1 more; 4 of them "
        "are ids of ood_cat: are the splits swapped?",
    ),
    "duplicate": (put("id_ids", at(1, "1000_0")), "id_ids has 1 id(s) more than once: 1000_0"),
    "empty id": (put("id_ids", at(1, "")), "id_ids has 1 empty id(s)"),
    "foreign [lmdb]": (
        put("id_ids", at(1, "77_0")),
        "id: 1 id(s) are not in the test set: 77_0",
    ),
    "missing [lmdb]": (
        without_last,
        "id: 1 of the 4 ids of the test set are missing: 1003_0",
    ),
    "chunk_idx too long": (
        put("id_chunk_idx", lambda a: np.append(a, 20)),
        "id_chunk_idx has 4 entries for 4 structures, not one less; the end of the last",
    ),
    "numbers of atoms": (
        put("id_chunk_idx", lambda a: np.full(4, 5)),
        "not one less; it must be the cumulative sum",
    ),
    "chunk_idx too short": (put("id_chunk_idx", lambda a: a[1:]), "has 2 entries for 4"),
    "chunk_idx falls": (put("id_chunk_idx", lambda a: a[::-1]), "id_chunk_idx does not cut an"),
    "chunk_idx beyond": (put("id_chunk_idx", at(2, 99)), "it goes from 99 to 20 at structure 3"),
    "chunk_idx of floats": (put("id_chunk_idx", lambda a: a * 1.0), "expected integers"),
    "an empty structure": (
        put("id_chunk_idx", at(1, 5)),
        "id_chunk_idx leaves 1 id(s) without atoms: 1001_1",
    ),
    "chunk_idx off [lmdb]": (
        put("id_chunk_idx", at(1, 11)),
        "id_chunk_idx gives 2 id(s) a number of rows of forces that differs from the number of "
        "their free atoms: 1001_1, 1002_2 (6, expected 5)",
    ),
    "forces cut off [lmdb]": (
        put("id_forces", lambda a: a[:-1]),
        "1003_0 (4, expected 5)",
    ),
    "NaN energy": (
        put("id_energy", at(2, np.nan)),
        "id_energy has NaN or infinity in 1 row(s): 1002_2",
    ),
    "float16 overflow": (
        put("id_energy", lambda a: np.full(4, 1e6, np.float32).astype(np.float16)),
        "1000_0, 1001_1, 1002_2 and 1 more; infinity in float16 is often an overflow",
    ),
    "NaN force": (
        put("id_forces", at((7, 1), np.nan)),
        "id_forces has NaN or infinity in 1 row(s), in 1 structure(s): 1001_1",
    ),
    "too few energies": (put("id_energy", lambda a: a[:2]), "id_energy has 2 entries for 4 ids"),
    "shape of energies": (put("id_energy", lambda a: np.stack([a, a], 1)), "has shape (4, 2)"),
    "shape of forces": (put("id_forces", lambda a: a.reshape(-1)), "expected (atoms, 3)"),
    "shape of ids": (put("id_ids", lambda a: a[:, None]), "id_ids has shape (4, 1)"),
    "no ids": (put("id_ids", lambda a: a[:0]), "id_ids is empty"),
    "integer energies": (put("id_energy", lambda a: a.astype(int)), "id_energy has dtype int64"),
    "bytes as ids": (put("id_ids", lambda a: a.astype("S")), "id_ids has dtype |S6"),
    "object ids": (put("id_ids", lambda a: a.astype(object)), "id_ids holds Python objects"),
    "object forces": (
        put("id_forces", lambda a: np.array(np.split(a, 4)[:3] + [a], dtype=object)),
        "id_forces holds Python objects",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused(name, data, references, tmp_path, capsys):
    change, message = DAMAGES[name]
    path = edit(good_submission(tmp_path / "a.npz", data), change)
    report = check_submission(path, references=references["s2ef"])
    assert any(message in problem for problem in report.problems) or (
        name in ("same file twice", "an empty structure") and not report.ok
    ), report.problems
    blind = check_submission(path)
    assert any(message in problem for problem in blind.problems) is ("[lmdb]" not in name)
    known = lmdb_options(data.s2ef) if "[lmdb]" in name else []
    assert main(["submission", "check", str(path), *known]) == 2
    printed = capsys.readouterr().out
    assert message in printed and "\nok" not in printed


def test_all_problems_are_found(data, tmp_path):
    path = good_submission(tmp_path / "a.npz", data)
    for change in ("NaN force", "duplicate", "chunk_idx too short"):
        edit(path, DAMAGES[change][0])
    edit(path, drop("ood_both_energy"))
    assert len(check_submission(path).problems) == 4


def test_oc22_and_positions_in_float16_are_refused(data, tmp_path):
    path = good_submission(tmp_path / "a.npz", data)

    def as_oc22(arrays):
        for name in list(arrays):
            if name.startswith(("ood_cat", "ood_both")):
                arrays.pop(name)
            elif name.startswith("ood_ads"):
                arrays[name.replace("ood_ads", "ood")] = arrays.pop(name)

    report = check_submission(edit(path, as_oc22))
    assert report.board is OC22
    assert [problem.partition(":")[0] for problem in report.problems] == ["id", "id", "ood", "ood"]
    assert all("float16" in problem for problem in report.problems)
    path = good_submission(tmp_path / "b.npz", data, "is2rs")
    report = check_submission(edit(path, put("id_pos", lambda a: a.astype(np.float16))))
    assert report.problems == ["id: id_pos has dtype float16: positions need float32 or float64"]


def test_forces_of_all_atoms(data, references, tmp_path):
    """Right where all are asked for; named for what they are where free ones are."""
    path = good_submission(tmp_path / "a.npz", data)

    def every(arrays):
        for split, records in data.records.items():
            records = sorted(records, key=lambda record: f"{record.sid}_{record.fid}")
            arrays[f"{split}_forces"] = np.concatenate([r.force.numpy() for r in records])
            arrays[f"{split}_chunk_idx"] = np.cumsum([r.natoms for r in records])[:-1]

    edit(path, every)
    assert check_submission(path, references=references["s2ef"], atoms="all").ok
    problems = check_submission(path, references=references["s2ef"]).problems
    assert len(problems) == 4
    assert all("these are forces of all atoms" in problem for problem in problems)


def test_a_partial_test_set_is_a_note(data, references, tmp_path):
    path = good_submission(tmp_path / "a.npz", data)
    report = check_submission(path, references={"id": references["s2ef"]["id"]})
    assert report.ok
    assert report.notes[0] == "ood_ads: no LMDB was given, so its ids are not checked"


def test_energies_with_a_second_axis_are_a_note(data, tmp_path):
    path = good_submission(tmp_path / "a.npz", data)
    edit(path, put("id_energy", lambda a: a[:, None]))
    report = check_submission(path)
    assert report.ok and "shape (4, 1), as fairchem 1.10 predicts" in report.notes[0]


def test_another_task_or_board_than_said(data, tmp_path):
    path = good_submission(tmp_path / "a.npz", data, "is2re")
    assert "id: id_forces, id_chunk_idx missing" in check_submission(path, "s2ef").problems[0]
    assert "ood: the split is missing" in check_submission(path, board=OC22).problems[0]


@pytest.mark.parametrize("cut", [0.5, 0.9, "flipped"])
def test_damaged_archives(cut, data, tmp_path):
    path = good_submission(tmp_path / "a.npz", data)
    content = bytearray(path.read_bytes())
    if cut == "flipped":
        with zipfile.ZipFile(path) as archive:
            start = archive.getinfo("id_forces.npy").header_offset
        content[start + 150] ^= 0xFF
        path.write_bytes(content)
        assert any("is damaged" in each for each in check_submission(path).problems)
        return
    path.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(DensError, match="not an npz file, or it is damaged"):
        check_submission(path)


def test_no_npz_file(tmp_path, capsys):
    assert main(["submission", "check", str(tmp_path / "a.npz")]) == 2
    assert "a.npz does not exist" in capsys.readouterr().err
    np.save(tmp_path / "b.npy", np.zeros(3))
    with pytest.raises(DensError, match="single array"):
        check_submission(tmp_path / "b.npy")
    (tmp_path / "c.npz").write_text("text")
    with pytest.raises(DensError, match="not an npz file"):
        check_submission(tmp_path / "c.npz")


def test_the_printed_report(data, tmp_path, capsys):
    path = good_submission(tmp_path / "a.npz", data)
    assert main(["submission", "check", str(path), *lmdb_options(data.s2ef)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{path}: OC20, S2EF"
    assert lines[3].split()[:3] == ["id", "4", "20"]
    assert lines[-1] == "ok"


def test_wrong_options(data, tmp_path, capsys):
    path = str(good_submission(tmp_path / "a.npz", data))
    source = data.s2ef["id"]
    for arguments, message in (
        (["--lmdb", "id"], "write SPLIT=PATH"),
        (["--lmdb", f"ood_adds={source}"], "did you mean 'ood_ads'?"),
        (["--lmdb", f"id={source}", "--lmdb", f"id={source}"], "the split id is given twice"),
        (["--lmdb", f"id={source}", "--lmdb", f"ood_ads={source}"], "each split has its own LMDB"),
        (["--lmdb", f"id={tmp_path / 'no'}"], "does not exist"),
        (["--board", "OC21"], "did you mean 'OC2"),
    ):
        assert main(["submission", "check", path, *arguments]) == 2
        assert message in capsys.readouterr().err


def test_the_checker_and_the_code_that_assembles_share_nothing():
    folder = Path(leaderboard.__file__).parent
    shared = {"reference"}  # what a data set holds
    imports = {
        name: set(re.findall(r"from dens_ocp\.results\.leaderboard\.(\w+) import", text))
        for path in folder.glob("*.py")
        for name, text in [(path.stem, path.read_text())]
    }

    def reached(name: str) -> set[str]:
        return {name}.union(*(reached(other) for other in imports[name]))

    assert reached("submission_checker") & reached("submission_sources") == shared


def test_a_split_of_a_leaderboards_size(tmp_path):
    """A quarter of a million structures: nothing walks through them one by one."""
    generator = np.random.default_rng(0)
    structures = 250_000
    arrays = {}
    for start, split in enumerate(OC20.splits):
        natoms = generator.integers(1, 4, structures)
        rows = int(natoms.sum())
        ids = np.char.add(np.arange(structures).astype(str), f"_{start}")
        arrays |= {
            f"{split}_ids": ids,
            f"{split}_energy": np.zeros(structures, np.float16),
            f"{split}_forces": np.zeros((rows, 3), np.float16),
            f"{split}_chunk_idx": np.cumsum(natoms)[:-1],
        }
    arrays["ood_cat_forces"][-1, 0] = np.inf
    np.savez(tmp_path / "a.npz", **arrays)
    problems = check_submission(tmp_path / "a.npz").problems
    assert len(problems) == 1 and "249999_2" in problems[0]
