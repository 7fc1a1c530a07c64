"""`dens-ocp data from-npz|from-xyz`: what is in the LMDBs, and which mistakes are refused."""

from __future__ import annotations

import json

import ase.io
import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from fairchem.core.datasets import LmdbDataset

from dens_ocp.data.dens_lmdb import DeNSLmdbDataset
from dens_ocp.errors import DensError
from dens_ocp.tools.cli import main
from dens_ocp.tools.data.split import draw
from tests.runs import make_trainer, small_config

KCAL = 0.04336410  # eV, of kcal/mol (CODATA)


def emt_frames(count: int, atoms: Atoms | None = None, seed: int = 0) -> list[Atoms]:
    """Rattled copies with EMT's energies and forces."""
    start = molecule("CH3OH") if atoms is None else atoms
    frames = []
    for index in range(count):
        frame = start.copy()
        frame.positions += np.random.default_rng([seed, index]).normal(0, 0.05, (len(start), 3))
        frame.calc = EMT()
        energy, forces = frame.get_potential_energy(), frame.get_forces(apply_constraint=False)
        frame.calc = SinglePointCalculator(frame, energy=energy, forces=forces)
        frames.append(frame)
    return frames


def write_npz(path, frames, names="R z E F", change=None):
    """MD17's archive: kcal/mol and Angstrom."""
    arrays = dict(
        zip(
            names.split(),
            (
                np.array([frame.positions for frame in frames]),
                frames[0].numbers.astype(np.uint8),
                np.array([[frame.get_potential_energy()] for frame in frames]) / KCAL,
                np.array([frame.get_forces(apply_constraint=False) for frame in frames]) / KCAL,
            ),
            strict=True,
        )
    )
    arrays |= change or {}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def data(*words) -> int:
    return main(["data", *map(str, words), "--no-progress"])


def records(folder) -> list:
    dataset = LmdbDataset({"src": str(folder)})
    return [dataset[index] for index in range(len(dataset))]


def fresh(tmp_path, *words, out="out"):
    assert data(*words, "--out", tmp_path / out) == 0
    return tmp_path / out


@pytest.mark.parametrize("names", ["R z E F", "coords nuclear_charges energies forces"])
def test_npz_is_converted(tmp_path, names, capsys):
    frames = emt_frames(12)
    path = write_npz(tmp_path / "md17.npz", frames, names)
    out = fresh(tmp_path, "from-npz", path, "--train", 6, "--val", 2)
    assert "kcal/mol" in capsys.readouterr().out
    mean = json.loads((out / "dataset.json").read_text())["energy"]["mean_of_one_composition_eV"]
    seen = []
    for split, count in (("train", 6), ("val", 2), ("test", 4)):
        found = records(out / split)
        assert len(found) == count
        assert np.load(out / split / "metadata.npz")["natoms"].tolist() == [6] * count
        for record in found:
            frame = frames[record.sid]
            seen.append(record.sid)
            assert record.pos.dtype == record.force.dtype == torch.float32
            assert np.allclose(record.pos, frame.positions, atol=1e-6)
            assert np.allclose(record.force, frame.get_forces(), rtol=1e-5)
            assert record.y + mean == pytest.approx(frame.get_potential_energy(), rel=1e-6)
            assert record.atomic_numbers.tolist() == frame.numbers.tolist()
            assert record.fixed.tolist() == record.tags.tolist() == [0] * 6
            assert record.natoms == 6 and record.fid == record.sid and "cell" not in record
    assert sorted(seen) == list(range(12))
    assert mean == pytest.approx(
        np.mean([frames[r.sid].get_potential_energy() for r in records(out / "train")]), rel=1e-6
    )


@pytest.mark.parametrize("frames", [2000, 211_762])
def test_seed_1_gives_the_split_of_the_authors_md17_code(frames):
    """Their ``datasets/pyg/md17.py``: a permutation of all frames, 950 and 50 of it, the rest."""
    order = np.random.default_rng(1).permutation(np.arange(frames, dtype=int))
    parts = draw(frames, {"train": 950, "val": 50, "test": None}, seed=1)
    for split, theirs in (("train", order[:950]), ("val", order[950:1000]), ("test", order[1000:])):
        assert np.array_equal(parts[split], np.sort(theirs)), split


def test_split_depends_on_the_seed_only(tmp_path):
    path = write_npz(tmp_path / "md17.npz", emt_frames(12))
    options = ("from-npz", path, "--train", 5, "--val", 3)
    splits = [
        np.load(fresh(tmp_path, *options, "--seed", seed, out=name) / "split.npz")
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert all((splits[0][name] == splits[1][name]).all() for name in ("train", "val", "test"))
    assert (splits[0]["train"] != splits[2]["train"]).any()
    again = fresh(tmp_path, "from-npz", path, "--split-file", tmp_path / "c/split.npz", out="d")
    for split in ("train", "val", "test"):
        assert (np.load(again / "split.npz")[split] == splits[2][split]).all()


def test_rmd17_index_files(tmp_path):
    path = write_npz(tmp_path / "rmd17.npz", emt_frames(12))
    np.savetxt(tmp_path / "train.csv", [0, 2, 4, 6, 8], fmt="%d")
    np.savetxt(tmp_path / "test.csv", [1, 3], fmt="%d")
    out = fresh(tmp_path, "from-npz", path, "--train-indices", tmp_path / "train.csv",
                "--test-indices", tmp_path / "test.csv", "--val", 2)  # fmt: skip
    split = np.load(out / "split.npz")
    assert sorted([*split["train"], *split["val"]]) == [0, 2, 4, 6, 8] and len(split["val"]) == 2
    assert split["test"].tolist() == [1, 3]


def test_energies_survive_float32(tmp_path):
    """Aspirin's energies near -17,600 eV: float32 would round differences to 2 meV."""
    frames = emt_frames(8)
    small = np.linspace(0, 0.007, 8)
    path = write_npz(tmp_path / "md17.npz", frames, change={"E": (small - 17617.123) / KCAL})
    out = fresh(tmp_path, "from-npz", path, "--train", 6, "--val", 2)
    stored = {r.sid: np.float32(r.y) for r in [*records(out / "train"), *records(out / "val")]}
    differences = [stored[sid] - stored[0] for sid in range(8)]
    assert np.abs(differences - small).max() < 1e-8 * 10
    kept = fresh(tmp_path, "from-npz", path, "--train", 6, "--val", 2, "--energy-reference",
                 "none", out="none")  # fmt: skip
    assert records(kept / "train")[0].y == pytest.approx(-17617.12, abs=0.01)


def test_units_of_the_command_line_and_of_the_file(tmp_path):
    frames = emt_frames(4)
    options = ("--train", 3, "--val", 1, "--energy-reference", "none")
    bohr = fresh(tmp_path, "from-npz", write_npz(tmp_path / "a.npz", frames), *options,
                 "--energy-unit", "hartree", "--length-unit", "Bohr", out="a")  # fmt: skip
    record = records(bohr / "train")[0]
    frame = frames[record.sid]
    assert record.y == pytest.approx(frame.get_potential_energy() / KCAL * 27.211386, rel=1e-6)
    assert np.allclose(record.pos, frame.positions * 0.52917721, atol=1e-5)
    assert np.allclose(record.force, frame.get_forces() / KCAL * 27.211386 / 0.52917721, rtol=1e-5)
    own = write_npz(tmp_path / "b.npz", frames, change={"e_unit": "eV", "r_unit": "Ang"})
    record = records(fresh(tmp_path, "from-npz", own, *options, out="b") / "train")[0]
    assert record.y == pytest.approx(frames[record.sid].get_potential_energy() / KCAL, rel=1e-6)


@pytest.mark.parametrize("name", ["frames.xyz", "frames.traj", "frames.db"])
def test_files_of_ase(tmp_path, name):
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    slab.pbc = True
    slab.set_constraint(FixAtoms([0]))
    frames = emt_frames(6, slab)
    if name.endswith("xyz"):
        written = [frame.copy() for frame in frames]
        for copy, frame in zip(written, frames, strict=True):
            copy.info["energy"] = frame.get_potential_energy()
            copy.arrays["forces"] = frame.get_forces(apply_constraint=False)
        columns = ["symbols", "positions", "forces", "move_mask"]
        ase.io.write(tmp_path / name, written, columns=columns)
    else:
        ase.io.write(tmp_path / name, frames)
    out = fresh(tmp_path, "from-xyz", tmp_path / name, "--train", 4, "--val", 2)
    assert not (out / "test").exists()
    for record in records(out / "train"):
        frame = frames[record.sid]
        assert record.fixed.tolist() == [1, 0, 0]
        # also of fixed atoms, as in OC20
        assert np.allclose(record.force, frame.get_forces(apply_constraint=False), atol=1e-6)
        assert record.force[0].norm() > 1e-3
        assert np.allclose(record.cell[0], frame.cell.array, atol=1e-5)
        distance = record.pos.double().numpy() - frame.positions
        scaled = distance @ np.linalg.inv(frame.cell.array)
        assert np.abs(scaled - scaled.round()).max() < 1e-5


def test_several_compositions_have_a_linear_reference(tmp_path):
    frames = []
    for index, (name, energy) in enumerate((("H2O", -6.0), ("O2", -8.0), ("H2", -2.0)) * 4):
        atoms = molecule(name)
        noise = 0.01 * (index // 3)
        atoms.calc = SinglePointCalculator(
            atoms, energy=energy + noise, forces=np.full((len(atoms), 3), 0.1 + noise)
        )
        frames.append(atoms)
    ase.io.write(tmp_path / "mixed.xyz", frames, format="extxyz")
    out = fresh(tmp_path, "from-xyz", tmp_path / "mixed.xyz", "--train", 10, "--val", 2)
    reference = json.loads((out / "dataset.json").read_text())["energy"]["reference_eV"]
    assert reference["H"] == pytest.approx(-1, abs=0.05)
    assert reference["O"] == pytest.approx(-4, abs=0.05)
    for record in records(out / "train"):
        numbers = record.atomic_numbers.tolist()
        total = sum(reference[{1: "H", 8: "O"}[number]] for number in numbers)
        assert record.y + total == pytest.approx(frames[record.sid].get_potential_energy())


def test_box_and_own_keys_and_test_file(tmp_path):
    frames = emt_frames(6)
    for frame in frames:
        frame.info["REF_energy"] = frame.get_potential_energy()
        frame.arrays["REF_forces"] = frame.get_forces()
        frame.calc = None
    ase.io.write(tmp_path / "a.xyz", frames[:4], format="extxyz")
    ase.io.write(tmp_path / "b.xyz", frames[4:], format="extxyz")
    out = fresh(tmp_path, "from-xyz", tmp_path / "a.xyz", "--test-file", tmp_path / "b.xyz",
                "--val", 1, "--box", 30, "--energy-key", "REF_energy", "--forces-key",
                "REF_forces")  # fmt: skip
    counts = {split: len(records(out / split)) for split in ("train", "val", "test")}
    assert counts == {"train": 3, "val": 1, "test": 2}
    assert sorted(record.sid for record in records(out / "test")) == [4, 5]
    for record in records(out / "train"):
        assert torch.equal(record.cell, 30 * torch.eye(3)[None])
        assert np.allclose(record.pos, frames[record.sid].positions, atol=1e-6)


def test_config_opens_the_data(tmp_path):
    path = write_npz(tmp_path / "md17.npz", emt_frames(12))
    out = fresh(tmp_path, "from-npz", path, "--train", 6, "--val", 2, "--config-out",
                tmp_path / "run.yml")  # fmt: skip
    config = yaml.safe_load((tmp_path / "run.yml").read_text())
    train = config["dataset"]["train"]
    record = DeNSLmdbDataset(train)[0]
    assert record.energy is not None and record.forces.shape == (6, 3)
    stdev = train["transforms"]["normalizer"]["forces"]["stdev"]
    forces = np.concatenate([r.force for r in records(out / "train")])
    assert stdev == pytest.approx(np.sqrt((forces**2).mean()), rel=1e-6)
    assert config["evaluation"]["s2ef"] == {"test": str(out / "test")}


# ---- mistakes ----------------------------------------------------------------------------------


def refused(tmp_path, capsys, *words) -> str:
    before = sorted(tmp_path.iterdir())
    assert data(*words, "--out", tmp_path / "out") == 2
    assert sorted(tmp_path.iterdir()) == before, "something half-written is left"
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    return error


NAN = np.full((12, 6, 3), 0.1)
NAN[7, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"F": None}, ["forces", "F (MD17)", "R, z, E"]),
        ({"F": np.zeros((12, 5, 3))}, ["the shapes do not match", "(12, 5, 3)"]),
        ({"E": np.zeros(11)}, ["12 frames", "(11,)"]),
        ({"z": np.ones((12, 6))}, ["numbers", "(12, 6)"]),
        ({"F": NAN}, ["frame 7", "NaN"]),
        ({"e_unit": "kal"}, ["kal", "known: eV"]),
        ({"F": np.zeros((12, 6, 3))}, ["forces", "do not vary"]),
    ],
)
def test_archives_that_are_refused(tmp_path, capsys, change, words):
    path = write_npz(tmp_path / "bad.npz", emt_frames(12), change=change)
    error = refused(tmp_path, capsys, "from-npz", path, "--train", 6, "--val", 2)
    assert all(word in error for word in words), error


def test_other_mistakes(tmp_path, capsys):
    frames = emt_frames(6)
    path = write_npz(tmp_path / "good.npz", frames)
    error = refused(tmp_path, capsys, "from-npz", path)
    assert "--train: 950 frames" in error and "6" in error
    error = refused(tmp_path, capsys, "from-npz", path, "--train", 3, "--val", 4)
    assert "--val: 4 frames" in error
    error = refused(tmp_path, capsys, "from-npz", path, "--train", 3, "--val", 1, "--box", 3)
    assert "--box" in error
    error = refused(tmp_path, capsys, "from-npz", path, "--force-unit", "kcal")
    assert "--force-unit" in error
    error = refused(tmp_path, capsys, "from-npz", tmp_path / "gone.npz")
    assert "gone.npz" in error
    (tmp_path / "half.npz").write_bytes(path.read_bytes()[:500])
    assert "half.npz" in refused(tmp_path, capsys, "from-npz", tmp_path / "half.npz")
    frames[4].calc = SinglePointCalculator(frames[4], energy=-1.0)
    ase.io.write(tmp_path / "a.traj", frames)
    error = refused(tmp_path, capsys, "from-xyz", tmp_path / "a.traj", "--train", 3)
    assert "frame 4 of" in error and "no forces" in error
    (tmp_path / "notes.xyz").write_text("not a structure\n")
    error = refused(tmp_path, capsys, "from-xyz", tmp_path / "notes.xyz")
    assert "cannot be read by ASE" in error


def test_a_periodic_model_wants_a_box(tmp_path):
    path = write_npz(tmp_path / "md17.npz", emt_frames(12))
    options = ("from-npz", path, "--train", 6, "--val", 2)
    for out, box in (("none", ()), ("box", ("--box", 30))):
        fresh(tmp_path, *options, *box, out=out)
        config = small_config(tmp_path / out)
        if box:
            make_trainer(config, tmp_path)
        else:
            with pytest.raises(DensError, match="has no cell.*--box 50"):
                make_trainer(config, tmp_path)


def test_nothing_is_overwritten(tmp_path, capsys):
    path = write_npz(tmp_path / "good.npz", emt_frames(6))
    options = ("from-npz", path, "--train", 3, "--val", 1, "--out", tmp_path / "out")
    assert data(*options) == 0
    before = (tmp_path / "out/train/data.0000.lmdb").read_bytes()
    assert data(*options) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "out/train/data.0000.lmdb").read_bytes() == before


def test_real_files(shared, tmp_path):
    folder = shared / "data/acetylacetone"
    out = fresh(tmp_path, "from-xyz", folder / "train_300K.xyz", "--test-file",
                folder / "test_MD_300K.xyz", "--val", 50)  # fmt: skip
    frames = ase.io.read(folder / "train_300K.xyz", ":")
    assert [len(records(out / split)) for split in ("train", "val", "test")] == [450, 50, 650]
    record = records(out / "train")[3]
    assert np.allclose(record.force, frames[record.sid].get_forces(), atol=1e-6)
    mean = json.loads((out / "dataset.json").read_text())["energy"]["mean_of_one_composition_eV"]
    assert record.y + mean == pytest.approx(frames[record.sid].get_potential_energy(), abs=1e-6)
    assert "cell" not in record  # pbc is F F F, whatever the Lattice
