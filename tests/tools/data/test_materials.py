"""`dens-ocp data materials`: labels, units, signs, splits, filters, and what is refused."""

from __future__ import annotations

import gzip
import json

import ase.db
import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from ase.units import GPa
from fairchem.core.datasets.ase_datasets import AseDBDataset
from pymatgen.core import Lattice, Structure
from pymatgen.io.ase import AseAtomsAdaptor

from dens_ocp.data.records.plausible_units import doubts
from dens_ocp.errors import DensError
from dens_ocp.tools.data.crystals import mptrj
from dens_ocp.tools.data.crystals.crystal import Crystal, Filters
from dens_ocp.tools.data.crystals.database import Databases
from dens_ocp.tools.data.crystals.stress import voigt
from dens_ocp.tools.data.frames import Frame
from dens_ocp.tools.doctor.data import check_data_set
from dens_ocp.tools.doctor.finding import WARNING
from tests.conftest import ROOT
from tests.runs import dens_ocp, logged
from tests.test_readme import SMALLER, commands_of
from tests.tools.data.test_convert import fresh, refused

METALS = ("Cu", "Ni", "Al", "Pd", "Ag", "Au", "Pt", "CuNi")
LABELS = {"r_energy": True, "r_forces": True, "r_stress": True}


def crystal(metal: str, seed: int) -> Atoms:
    """Four atoms, rattled and strained, with EMT's energy, forces and stress."""
    atoms = bulk(metal[:2], cubic=True)
    if metal == "CuNi":
        atoms.numbers[2:] = 28
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0, 0.1, (4, 3))
    atoms.set_cell(atoms.cell @ (np.eye(3) + 0.03 * rng.normal(0, 1, (3, 3))), scale_atoms=True)
    atoms.calc = EMT()
    results = {
        "energy": atoms.get_potential_energy(),
        "forces": atoms.get_forces(),
        "stress": atoms.get_stress(),
    }
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def crystals(frames: int = 2, metals=METALS) -> list[Atoms]:
    found = []
    for number, metal in enumerate(metals):
        for frame in range(frames):
            atoms = crystal(metal, 10 * number + frame)
            atoms.info["mp_id"] = f"mp-{number}"
            found.append(atoms)
    return found


def opened(folder, **labels) -> AseDBDataset:
    return AseDBDataset({"src": str(folder), "a2g_args": labels or dict(LABELS)})


def records(out) -> dict[int, object]:
    """Those of all splits, by ``fid``."""
    found = {}
    for folder in (out / "train", out / "val", out / "test"):
        if folder.is_dir():
            dataset = opened(folder)
            found |= {
                int(record.fid): record for record in (dataset[i] for i in range(len(dataset)))
            }
    return found


def same_labels(out, frames) -> None:
    """The records are the frames, in their order."""
    found = records(out)
    assert sorted(found) == list(range(len(frames)))
    for number, atoms in enumerate(frames):
        record = found[number]
        assert record.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-9)
        assert np.allclose(record.forces, atoms.get_forces(), atol=1e-6)
        assert np.allclose(record.stress.squeeze(), atoms.get_stress(voigt=False), atol=1e-7)
        assert np.allclose(record.cell[0], atoms.cell.array, atol=1e-5)
        assert record.atomic_numbers.tolist() == atoms.numbers.tolist()


def converted(tmp_path, path, *words, out="out"):
    return fresh(tmp_path, "materials", path, *words, out=out)


def test_the_stress_is_the_derivative_of_the_energy(tmp_path):
    """What a record holds, against finite differences of EMT's energy by the strain."""
    frames = crystals(1, METALS[:3])
    ase.io.write(tmp_path / "a.xyz", frames)
    found = records(converted(tmp_path, tmp_path / "a.xyz", "--val", 0))
    for number, atoms in enumerate(frames):
        live = atoms.copy()
        live.calc = EMT()
        numeric = voigt_6_to_full_3x3_stress(calculate_numerical_stress(live))
        assert np.allclose(found[number].stress.squeeze(), numeric, atol=1e-5)
        assert np.abs(numeric).max() > 1e-2


def test_split_by_material(tmp_path, capsys):
    frames = crystals(3)
    order = np.random.default_rng(0).permutation(len(frames))
    ase.io.write(tmp_path / "a.xyz", [frames[index] for index in order])
    words = ("--val", 0.25, "--test", 0.1)
    out = converted(tmp_path, tmp_path / "a.xyz", *words)
    assert "train 15 frames of 5 materials, val 6 frames of 2 materials, test 3 frames of 1" in (
        capsys.readouterr().out
    )
    same_labels(out, [frames[index] for index in order])
    splits = {}
    for split in ("train", "val", "test"):
        dataset = opened(out / split)
        splits[split] = {dataset[index].sid for index in range(len(dataset))}
        natoms = np.load(out / split / "metadata.npz")["natoms"]
        assert natoms.tolist() == [4] * len(dataset)
        assert sorted(each.name for each in (out / split).iterdir()) == [
            "data.0000.aselmdb", "metadata.npz",
        ]  # fmt: skip
    assert [len(each) for each in splits.values()] == [5, 2, 1]
    assert set.union(*splits.values()) == {f"mp-{number}" for number in range(8)}
    # a seed gives the same materials, whatever the order of the frames; another one others
    ase.io.write(tmp_path / "b.xyz", frames)
    drawn = {}
    for name, seed in (("again", 0), ("other", 1)):
        dataset = opened(converted(tmp_path, tmp_path / "b.xyz", *words, "--seed", seed, out=name)
                         / "val")  # fmt: skip
        drawn[name] = {dataset[index].sid for index in range(len(dataset))}
    assert drawn["again"] == splits["val"] != drawn["other"]


def test_the_reduced_formula_stands_for_a_material(tmp_path, capsys):
    frames = crystals(2, ("Cu", "CuNi"))
    frames[1] = frames[1].repeat((1, 1, 2))
    frames[1].calc = SinglePointCalculator(
        frames[1], energy=-1.0, forces=np.full((8, 3), 0.1), stress=np.full(6, 0.01)
    )
    for atoms in frames:
        atoms.info.clear()
    ase.io.write(tmp_path / "a.xyz", frames)
    out = converted(tmp_path, tmp_path / "a.xyz", "--val", 0.5, out="first")
    found = records(out)
    assert [found[number].sid for number in range(4)] == ["Cu", "Cu", "CuNi", "CuNi"]
    assert "train 2 frames of 1 materials, val 2 frames of 1" in capsys.readouterr().out
    # a name of one's own, also for one frame without it
    frames[0].info["phase"] = "fcc"
    ase.io.write(tmp_path / "b.xyz", frames)
    error = refused(tmp_path, capsys, "materials", tmp_path / "b.xyz", "--material-key", "phase")
    assert "frame 1 of" in error and "no 'phase'" in error and "--material-key" in error
    error = refused(tmp_path, capsys, "materials", tmp_path / "b.xyz", "--val", 0.5, "--test", 0.5)
    assert "2 materials cannot be split" in error


def test_files_of_their_own_for_val(tmp_path, capsys):
    frames = crystals(2)
    ase.io.write(tmp_path / "a.xyz", frames[:12])
    ase.io.write(tmp_path / "b.xyz", frames[11:])
    out = converted(tmp_path, tmp_path / "a.xyz", "--val-file", tmp_path / "b.xyz")
    said = capsys.readouterr().out
    assert "train 12 frames of 6 materials, val 5 frames of 3 materials" in said
    assert "warning: 1 materials of val are also in train, for example mp-5" in said
    assert [opened(out / "val")[index].fid for index in range(5)] == [12, 13, 14, 15, 16]


FORMS = {
    "3x3": lambda stress: voigt_6_to_full_3x3_stress(stress),
    "9": lambda stress: voigt_6_to_full_3x3_stress(stress).reshape(9),
    "6": lambda stress: stress,
}
UNITS = {"eV/Angstrom^3": 1.0, "GPa": GPa, "kbar": 0.1 * GPa}


@pytest.mark.parametrize(
    ("form", "unit", "sign"),
    [("3x3", "kbar", "vasp"), ("9", "GPa", "ase"), ("6", "eV/Angstrom^3", "vasp")],
)
@pytest.mark.parametrize("ending", ["xyz", "db"])
def test_forms_units_and_signs_of_stress(tmp_path, form, unit, sign, ending):
    """Named labels in a file of ASE's and in a database, with several energies."""
    frames = crystals(1, METALS[:3])
    written = []
    for atoms in frames:
        bare = atoms.copy()
        factor = UNITS[unit] * (-1 if sign == "vasp" else 1)
        bare.info["my_stress"] = FORMS[form](atoms.get_stress() / factor)
        bare.info["my_energy_per_atom"] = atoms.get_potential_energy() / len(atoms)
        bare.info["corrected"] = -1.0
        bare.arrays["my_forces"] = atoms.get_forces()
        written.append(bare)
    path = tmp_path / f"a.{ending}"
    if ending == "xyz":
        ase.io.write(path, written)
    else:
        with ase.db.connect(path) as database:
            for atoms in written:
                arrays = {"my_stress": atoms.info.pop("my_stress"),
                          "my_forces": atoms.arrays.pop("my_forces")}  # fmt: skip
                database.write(atoms, key_value_pairs=atoms.info, data=arrays)
    out = converted(
        tmp_path, path, "--val", 0, "--energy-key", "my_energy_per_atom", "--forces-key",
        "my_forces", "--stress-key", "my_stress", "--stress-unit", unit, "--stress-sign", sign,
    )  # fmt: skip
    same_labels(out, frames)


@pytest.mark.parametrize("words", ["1 6 5 6 2 4 5 4 3", "1 2 3 4 5 6"])
@pytest.mark.parametrize("key", ["stress", "REF_stress"])
def test_stress_as_text(tmp_path, words, key):
    """A line of extended XYZ as people write it: 9 numbers, or 6 in Voigt's order."""
    line = 'Lattice="3 0 0 0 3 0 0 0 3" Properties=species:S:1:pos:R:3:forces:R:3 energy=-1 '
    frame = f'1\n{line}{key}="{words}"\nCu 0 0 0 0.1 0.2 0.3\n'
    (tmp_path / "a.xyz").write_text(2 * frame)
    named = () if key == "stress" else ("--stress-key", key)
    out = converted(tmp_path, tmp_path / "a.xyz", "--val", 0, *named)
    assert records(out)[1].stress.squeeze().tolist() == [[1, 6, 5], [6, 2, 4], [5, 4, 3]]


@pytest.mark.parametrize("ending", ["db", "json", "aselmdb", "traj"])
def test_files_of_ase(tmp_path, ending):
    frames = crystals(1, METALS[:3])
    path = tmp_path / f"a.{ending}"
    if ending == "traj":
        ase.io.write(path, frames)
    else:
        with ase.db.connect(str(path), use_lock_file=False) as database:
            for atoms in frames:
                database.write(atoms, mp_id=atoms.info["mp_id"])
    out = converted(tmp_path, path, "--val", 0)
    same_labels(out, frames)
    assert records(out)[2].sid == "mp-2"


def mptrj_json(frames, energy=0.0) -> dict:
    """MPtrj's layout: VASP's stress in kbar, which is positive where the cell wants to grow."""
    found: dict = {}
    for number, atoms in enumerate(frames):
        material = atoms.info["mp_id"]
        total = atoms.get_potential_energy()
        found.setdefault(material, {})[f"{material}-{number}-0"] = {
            "structure": AseAtomsAdaptor.get_structure(atoms).as_dict(),
            "uncorrected_total_energy": total,
            "corrected_total_energy": total + 4 * energy,
            "energy_per_atom": total / 4 + energy,
            "ef_per_atom": -0.1,
            "force": atoms.get_forces().tolist(),
            "stress": (atoms.get_stress(voigt=False) / (-0.1 * GPa)).tolist(),
            "magmom": None,
            "bandgap": 0.0,
            "mp_id": material,
        }
    return found


@pytest.mark.parametrize("ending", ["json", "json.gz"])
def test_mptrj(tmp_path, ending, monkeypatch, capsys):
    """Units and signs without being asked, material by material in small pieces."""
    monkeypatch.setattr(mptrj, "_CHUNK", 100)
    frames = crystals(2, METALS[:3])
    path = tmp_path / f"MPtrj.{ending}"
    with (gzip.open if ending.endswith("gz") else open)(path, "wt") as file:
        json.dump(mptrj_json(frames), file, indent=None if ending == "json" else 1)
    out = converted(tmp_path, path, "--val", 0.3)
    said = capsys.readouterr().out
    assert "energy: uncorrected_total_energy (eV)" in said and "stress (kbar, sign of vasp)" in said
    assert "warning" not in said
    same_labels(out, frames)
    record = records(out)[3]
    assert record.sid == "mp-1"
    with ase.db.connect(str(next((out / "train").glob("*.aselmdb"))), readonly=True,
                        use_lock_file=False) as database:  # fmt: skip
        row = next(database.select())
        assert row.data["frame"].startswith(f"{row.data['sid']}-{row.data['fid']}")


@pytest.mark.parametrize("key", ["corrected_total_energy", "energy_per_atom"])
def test_which_energy_of_mptrj(tmp_path, key):
    frames = crystals(1, METALS[:2])
    (tmp_path / "a.json").write_text(json.dumps(mptrj_json(frames, energy=-0.7)))
    found = records(converted(tmp_path, tmp_path / "a.json", "--val", 0, "--energy-key", key))
    for number, atoms in enumerate(frames):
        assert found[number].energy == pytest.approx(atoms.get_potential_energy() - 4 * 0.7)


@pytest.mark.parametrize("species", [{"Fe": 1}, {"Fe3+": 1}, {"D": 1}, {"Fe": 0.5, "Ni": 0.5}])
def test_structures_of_pymatgen(species):
    """As pymatgen makes them; a site with two elements is none of ASE's."""
    lattice = Lattice.from_parameters(3, 4, 5, 70, 80, 95)
    described = Structure(lattice, [species, "O"], [[0, 0, 0], [0.4, 0.5, 1.2]]).as_dict()
    if len(species) > 1:
        with pytest.raises(ValueError, match="ordered"):
            mptrj.structure(described)
        return
    ours, theirs = mptrj.structure(described), Structure.from_dict(described).to_ase_atoms()
    assert ours.get_chemical_symbols() == theirs.get_chemical_symbols()
    assert np.allclose(ours.positions, theirs.positions) and ours.pbc.all()
    assert np.allclose(ours.cell.array, theirs.cell.array)


def test_broken_mptrj(tmp_path, capsys):
    frames = crystals(1, METALS[:2])
    text = json.dumps(whole := mptrj_json(frames))
    (tmp_path / "half.json").write_text(text[: len(text) - 300])
    assert "is cut short" in refused(tmp_path, capsys, "materials", tmp_path / "half.json")
    del whole["mp-1"]["mp-1-1-0"]["structure"]["lattice"]
    (tmp_path / "a.json").write_text(json.dumps(whole))
    error = refused(tmp_path, capsys, "materials", tmp_path / "a.json")
    assert "frame mp-1-1-0 of" in error and "no structure that pymatgen reads" in error
    whole["mp-1"] = [1]
    (tmp_path / "b.json").write_text(json.dumps(whole))
    assert "mp-1 holds no frames" in refused(tmp_path, capsys, "materials", tmp_path / "b.json")
    frames = mptrj_json(crystals(1, METALS[:2]))
    frames["mp-0"]["mp-0-0-0"]["stress"] = None
    (tmp_path / "c.json").write_text(json.dumps(frames))
    error = refused(tmp_path, capsys, "materials", tmp_path / "c.json")
    assert "frame mp-0-0-0 of" in error and "has no stress" in error


# ---- filters -----------------------------------------------------------------------------------


def made(atoms=None, force=1.0, stress=1.0) -> Crystal:
    """A force (eV/Angstrom) on one atom, a stress (GPa) in one component."""
    atoms = bulk("Cu", cubic=True) if atoms is None else atoms
    forces = np.zeros((len(atoms), 3))
    forces[-1] = force * np.array([0.6, 0.0, -0.8])
    tensor = np.array([0, 0, -stress, 0, 0, 0]) * GPa
    return Crystal(Frame(atoms, -1.0, forces, 0, "frame 0 of a.xyz"), tensor, "mp-1", "a.xyz:0")


def lonely(distance: float) -> Atoms:
    """Two atoms in a cell of 20 Angstrom, and one a distance away from the second."""
    return Atoms("Cu3", [[0, 0, 0], [2, 0, 0], [2, 0, distance]], cell=[20, 20, 20], pbc=True)


@pytest.mark.parametrize(
    ("crystal", "reason"),
    [
        (made(force=49.9), None),
        (made(force=50.1), "a force above 50 eV/Angstrom"),
        (made(stress=79.9), None),
        (made(stress=-80.1), "a stress above 80 GPa"),
        (made(lonely(5.9)), None),
        (made(lonely(6.1)), "an atom without a neighbour within 6 Angstrom"),
        # its own images are neighbours
        (made(Atoms("Cu", cell=[5.9, 20, 20], pbc=True)), None),
        (made(Atoms("Cu", cell=[6.1, 20, 20], pbc=True)), "an atom without a neighbour within 6"),
    ],
)  # fmt: skip
def test_filters(crystal, reason):
    found = Filters(50.0, 80.0, 6.0).reason(crystal)
    assert found == reason if reason is None else found.startswith(reason)
    assert Filters().reason(crystal) is None


def test_filters_of_the_command(tmp_path, capsys):
    frames = crystals(1)
    frames[2].calc.results["forces"][0] = [51, 0, 0]
    frames[5].calc.results["stress"][4] = 81 * GPa
    ase.io.write(tmp_path / "a.xyz", frames)
    out = converted(tmp_path, tmp_path / "a.xyz", "--filters", out="a")
    said = capsys.readouterr().out
    assert "1 frames are left out because of a force above 50" in said
    assert "1 frames are left out because of a stress above 80 GPa" in said
    assert sorted(records(out)) == [0, 1, 3, 4, 6, 7]
    out = converted(tmp_path, tmp_path / "a.xyz", "--max-stress", 100, "--filters", out="b")
    assert sorted(records(out)) == [0, 1, 3, 4, 5, 6, 7]
    out = converted(tmp_path, tmp_path / "a.xyz", out="c")
    assert sorted(records(out)) == list(range(8))
    assert "warning" not in capsys.readouterr().out
    error = refused(tmp_path, capsys, "materials", tmp_path / "a.xyz", "--max-force", 1e-9)
    assert "none of the 8 frames is left (8 for a force above 1e-09" in error


# ---- mistakes ----------------------------------------------------------------------------------


def changed(**results) -> list[Atoms]:
    """Four frames; the results of the second are other ones, or missing."""
    frames = crystals(1, METALS[:4])
    for name, value in results.items():
        if value is None:
            del frames[1].calc.results[name]
        else:
            frames[1].calc.results[name] = value
    return frames


def with_another(atoms, **results) -> list[Atoms]:
    frames = crystals(1, METALS[:4])
    atoms.info["mp_id"] = "mp-1"
    values = {"energy": -1.0, "forces": np.full((len(atoms), 3), 0.1), **results}
    atoms.calc = SinglePointCalculator(atoms, **values)
    frames[1] = atoms
    return frames


FLAT = bulk("Cu", cubic=True)
FLAT.cell[2] = FLAT.cell[1]
SLAB = bulk("Cu", cubic=True)
SLAB.pbc = (True, True, False)
CROOKED = np.array([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (changed(stress=None), ["has no stress", "--no-stress", "1 of 4 frames"]),
        (changed(forces=None), ["has no forces"]),
        (changed(stress=np.full(6, np.nan)), ["stress holds NaN"]),
        (changed(stress=CROOKED), ["not symmetric", "0.2"]),
        (changed(stress=np.ones(5)), ["the stress has shape (5,)", "Voigt"]),
        (with_another(FLAT, stress=np.ones(6)), ["cell has no volume"]),
        (with_another(molecule("H2O"), stress=np.ones(6)), ["a molecule", "and has no cell"]),
        (with_another(molecule("H2O")), ["frame 1", "has no stress"]),
        (with_another(SLAB, stress=np.ones(6)), ["a slab", "[True, True, False]"]),
    ],
)  # fmt: skip
def test_frames_that_are_refused_or_left_out(tmp_path, capsys, frames, words):
    """Of an ASE trajectory, which keeps what a calculator gave as it is."""
    path = tmp_path / "a.traj"
    ase.io.write(path, frames)
    error = refused(tmp_path, capsys, "materials", path)
    assert "frame 1 of" in error and "--skip-incomplete" in error
    assert all(word in error for word in words), error
    out = converted(tmp_path, path, "--skip-incomplete")
    assert "1 of 4 frames are left out; the first: frame 1 of" in capsys.readouterr().out
    assert sorted(records(out)) == [0, 2, 3]


def test_without_stress(tmp_path, capsys):
    ase.io.write(tmp_path / "a.traj", changed(stress=None))
    out = fresh(tmp_path, "materials", tmp_path / "a.traj", "--no-stress", "--config-out",
                tmp_path / "c.yml")  # fmt: skip
    with pytest.raises(PropertyNotImplementedError):
        opened(out / "train")[0]
    assert opened(out / "train", r_energy=True, r_forces=True)[0].energy is not None
    config = yaml.safe_load((tmp_path / "c.yml").read_text())
    assert "stress" not in config["outputs"] and "heads" not in config["model"]
    assert "r_stress" not in config["dataset"]["train"]["a2g_args"]
    error = refused(tmp_path, capsys, "materials", tmp_path / "a.traj", "--no-stress",
                    "--max-stress", 80)  # fmt: skip
    assert "--max-stress" in error and "--no-stress" in error


def test_names_that_are_not_there(tmp_path, capsys):
    frames = crystals(1, METALS[:2])
    for atoms in frames:
        atoms.info["virial"] = np.eye(3)
        atoms.info["corrected"] = -2.0
    ase.io.write(tmp_path / "a.xyz", frames)
    error = refused(tmp_path, capsys, "materials", tmp_path / "a.xyz", "--stress-key", "strain")
    assert "no stress 'strain'" in error and "virial" in error and "--stress-key" in error
    error = refused(tmp_path, capsys, "materials", tmp_path / "a.xyz", "--energy-key", "corected")
    assert "no energy 'corected'" in error and "corrected" in error
    assert "gone.xyz" in refused(tmp_path, capsys, "materials", tmp_path / "gone.xyz")


def test_kbar_read_as_ev(tmp_path, capsys):
    frames = crystals(1)
    for atoms in frames:
        atoms.calc.results["stress"] /= 0.1 * GPa
    ase.io.write(tmp_path / "a.xyz", frames)
    fresh(tmp_path, "materials", tmp_path / "a.xyz", "--config-out", tmp_path / "c.yml")
    said = capsys.readouterr().out
    assert "warning: an rms stress of" in said and "kbar" in said and "--stress-unit" in said
    section = yaml.safe_load((tmp_path / "c.yml").read_text())["dataset"]["val"]
    seen = check_data_set({"loss_functions": [], "outputs": {}}, "val", section, everything=True)
    assert any("rms stress" in each.text for each in seen if each.status == WARNING)
    converted(tmp_path, tmp_path / "a.xyz", "--stress-unit", "kbar", out="right")
    assert "warning" not in capsys.readouterr().out


def test_magnitudes_of_stress():
    assert doubts(rms_stress=0.027) == doubts(rms_stress=0.7) == doubts() == []
    assert "1602 times too large" in doubts(rms_stress=0.027 * 1602)[0]
    assert "1602 times too small" in doubts(rms_stress=0.027 / 1602)[0]


def test_shapes_of_one_stress():
    six = np.array([1.0, 2, 3, 4, 5, 6])  # xx yy zz yz xz xy
    full = [[1, 6, 5], [6, 2, 4], [5, 4, 3]]
    for each in (six, six.tolist(), full, np.ravel(full).tolist(), [full]):
        assert voigt(each, "").tolist() == six.tolist()
    assert full_3x3_to_voigt_6_stress(np.array(full)).tolist() == six.tolist()
    for wrong in (1.0, "abc", np.ones((2, 3)), ["x"] * 6):
        with pytest.raises(DensError, match=r"a\.xyz"):
            voigt(wrong, "a.xyz")


def test_several_files_of_a_folder(tmp_path):
    frames = [bulk("Cu").repeat((1, 1, count)) for count in range(1, 6)]
    with Databases(tmp_path / "train", rows=2) as databases:
        for fid, atoms in enumerate(frames):
            databases.write(made(atoms), fid)
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == [
        "data.0000.aselmdb", "data.0001.aselmdb", "data.0002.aselmdb", "metadata.npz",
    ]  # fmt: skip
    dataset = opened(tmp_path / "train")
    assert [dataset[index].natoms for index in range(5)] == [1, 2, 3, 4, 5]
    assert dataset._metadata["natoms"].tolist() == [1, 2, 3, 4, 5]


# ---- real data, and the whole road -------------------------------------------------------------


def test_work_in_mptrj(shared, tmp_path):
    """Two frames of one relaxation: the work of forces and stress is the difference of energies,
    which settles unit and sign of the stress in ../shared/data/mptrj_1k."""
    frames = ase.io.read(shared / "data/mptrj_1k/train.xyz", ":")
    ase.io.write(
        tmp_path / "a.xyz",
        [atoms for atoms in frames if atoms.info["mptrj_traj_id"] == "mp-1174602"],
    )
    found = records(converted(tmp_path, tmp_path / "a.xyz", "--val", 0))
    first, second = found[0], found[1]
    cells = [each.cell[0].double().numpy() for each in (first, second)]
    gradient = np.linalg.solve(cells[0], cells[1])
    strain = (gradient + gradient.T) / 2 - np.eye(3)
    moved = (second.pos.double().numpy() @ np.linalg.inv(cells[1])
             - first.pos.double().numpy() @ np.linalg.inv(cells[0]))  # fmt: skip
    moved = (moved - moved.round()) @ (cells[0] + cells[1]) / 2
    mean = {
        name: ((first[name] + second[name]) / 2).double().numpy().reshape(-1, 3)
        for name in ("forces", "stress")
    }
    of_stress = abs(np.linalg.det(cells[0])) * (mean["stress"] * strain).sum()
    of_forces = -(mean["forces"] * moved).sum()
    difference = second.energy - first.energy
    assert abs(of_stress) > 0.01
    assert difference == pytest.approx(of_forces + of_stress, abs=0.2 * abs(of_stress))


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """The three commands of docs/materials.md, with a smaller model and one epoch."""
    folder = tmp_path_factory.mktemp("road")
    ase.io.write(folder / "train.xyz", crystals(3))
    convert, train, report = commands_of("recipe", ROOT / "docs" / "materials.md")
    smaller = [*SMALLER, "--model.num_distance_basis=32", "--optim.max_epochs=2",
               "--run-dir", folder]  # fmt: skip
    said = [
        dens_ocp(*words[1:], *more, cwd=folder)
        for words, more in ((convert, ()), (train, smaller), (report, ()))
    ]
    return folder, [done.stdout + done.stderr for done in said]


def test_three_commands_lead_to_a_trained_model(road):
    folder, (converted, _, reported) = road
    assert "train 21 frames of 7 materials, val 3 frames of 1 materials" in converted
    lines = logged(folder, "mine")
    assert len(lines) == 6
    for name in ("loss_energy", "loss_forces", "loss_stress_isotropic", "loss_stress_anisotropic"):
        assert all(np.isfinite(line[name]) for line in lines), name
        assert any(line[name] > 0 for line in lines), name
    assert any(line["dens_structures"] > 0 for line in lines)
    validated = logged(folder, "mine", "val")
    assert all(np.isfinite(line["stress_mae"]) for line in validated) and validated
    assert (folder / "checkpoints/mine/best_checkpoint.pt").is_file()
    assert (folder / "results/mine/report/index.html").is_file()
    assert "index.html" in reported
