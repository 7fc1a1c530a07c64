"""`dens-ocp data` on files as people have them: elements, boxes, units, incomplete frames."""

from __future__ import annotations

import json

import ase.db
import ase.io
import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from dens_ocp.errors import DensError
from dens_ocp.tools.data import energy_reference
from dens_ocp.tools.data.frames import Frame, fitted_box
from tests.runs import make_trainer
from tests.tools.data.test_convert import data, emt_frames, fresh, records, write_npz

OCTAHEDRON = 2.0 * np.array([[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1],
                             [0, 0, -1]])  # fmt: skip


def labelled(atoms, seed, scale=1.0, energy=-30.0):
    rng = np.random.default_rng(seed)
    forces = scale * rng.normal(0, 1, (len(atoms), 3))
    atoms.calc = SinglePointCalculator(atoms, energy=energy + 0.1 * rng.normal(), forces=forces)
    return atoms


def hexafluorides(count=10, **options):
    return [
        labelled(
            Atoms("UF6", OCTAHEDRON + np.random.default_rng(i).normal(0, 0.02, (7, 3))),
            i,
            **options,
        )
        for i in range(count)
    ]


def written(folder, frames, name="a.xyz"):
    ase.io.write(folder / name, frames)
    return folder / name


SPLIT = ("--train", 6, "--val", 2, "--test", 0)


@pytest.mark.parametrize("box", [("--box", 30), ()])
def test_the_written_config_trains(tmp_path, box, capsys):
    """Elements beyond OC20's, and a box without being asked: the config's model needs one."""
    path = written(tmp_path, hexafluorides())
    fresh(tmp_path, "from-xyz", path, *SPLIT, *box, "--config-out", tmp_path / "run.yml")
    config = yaml.safe_load((tmp_path / "run.yml").read_text())
    assert config["model"]["max_num_elements"] == 93 and config["model"]["max_radius"] == 6
    side = 30 if box else 15  # 4 long, 6 far: the next multiple of 5, with rattling
    assert records(tmp_path / "out/train")[0].cell[0].diag().tolist() == [side] * 3
    assert json.loads((tmp_path / "out/dataset.json").read_text())["box_Angstrom"] == side
    assert f"empty box of {side} Angstrom" in capsys.readouterr().out
    config["model"] |= {"num_layers": 1, "sphere_channels": 8, "num_distance_basis": 32}
    config["optim"] |= {"max_epochs": 1, "load_balancing": None}
    trainer = make_trainer(config, tmp_path)
    trainer.train(disable_eval_tqdm=True)
    assert trainer.step == 1


def test_without_a_config_the_numbers_are_said(tmp_path, capsys):
    path = written(tmp_path, hexafluorides())
    fresh(tmp_path, "from-xyz", path, *SPLIT)
    assert "the model needs max_num_elements of 93 or more" in capsys.readouterr().out
    assert "cell" not in records(tmp_path / "out/train")[0]


def pair(distance, pbc=False, cell=None):
    atoms = Atoms("Cu2", [[0, 0, 0], [0, 0, distance]], cell=cell, pbc=pbc)
    return Frame(atoms, 0.0, np.zeros((2, 3)), 0, "frame 0 of a.xyz")


@pytest.mark.parametrize(("extent", "cutoff"), [(2.3, 6.0), (22.1, 6.0), (24.0, 12.0), (4.0, 6.0)])
def test_a_box_is_as_large_as_the_model_sees(extent, cutoff):
    """The box that a refusal names is accepted; in an accepted one no atom sees an image."""
    frames = [pair(0.9 * extent), pair(extent)]
    for side in (0.0, cutoff, extent, 2 * extent, extent + cutoff - 0.01, float("nan")):
        if side >= extent + cutoff:
            continue
        with pytest.raises(DensError, match=r"--box: .* --box (\d+) is enough") as error:
            fitted_box(frames, side, cutoff)
        enough = float(str(error.value).split("--box ")[-1].split()[0])
        assert fitted_box(frames, enough, cutoff).side == enough
        assert enough == fitted_box(frames, "auto", cutoff).side
        assert enough - extent >= cutoff and enough - extent - cutoff < 5
    exact = fitted_box(frames, extent + cutoff, cutoff)
    assert exact.largest_cutoff == pytest.approx(cutoff)
    assert fitted_box(frames, None, cutoff) is None


def test_the_box_knows_the_cutoff_of_the_command_line(tmp_path, capsys):
    path = write_npz(tmp_path / "md17.npz", emt_frames(9))  # methanol, 2.3 Angstrom long
    options = ("from-npz", path, *SPLIT, "--out", tmp_path / "out")
    for words in (("--box", 6), ("--box", 12, "--cutoff", 12), ("--box", 30, "--cutoff", -1)):
        assert data(*options, *words) == 2
        assert words[-2] in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert data(*options, "--cutoff", 12, "--config-out", tmp_path / "run.yml") == 0
    config = yaml.safe_load((tmp_path / "run.yml").read_text())
    side = float(records(tmp_path / "out/train")[0].cell[0, 0, 0])
    assert config["model"]["max_radius"] == 12 and side == 15


@pytest.mark.parametrize("asked", [6.0, 13.0])
def test_a_model_that_sees_further_than_the_box_allows(tmp_path, asked):
    path = written(tmp_path, hexafluorides())  # 4 Angstrom long
    fresh(tmp_path, "from-xyz", path, *SPLIT, "--cutoff", asked, "--config-out", tmp_path / "c.yml")
    config = yaml.safe_load((tmp_path / "c.yml").read_text())
    config["model"] |= {"num_layers": 1, "sphere_channels": 8, "max_radius": 12.0}
    if asked > 12:
        make_trainer(config, tmp_path)
        return
    with pytest.raises(
        DensError, match=r"box of 15 Angstrom.* a cutoff of 12 .*convert them with --cutoff 12"
    ):
        make_trainer(config, tmp_path)
    config["model"]["max_radius"] = 10.5  # in a box of 15
    make_trainer(config, tmp_path)


def test_vacuum_of_slabs_that_are_not_periodic_in_one_direction():
    """Records hold no pbc: fairchem repeats the cell in all directions."""
    cell = [2.5, 2.5, 8.5]
    assert fitted_box([pair(2.5, (True, True, False), cell)], None, 6.0) is None
    with pytest.raises(DensError, match="along its cell vector 3.* has 5.50 Angstrom of vacuum"):
        fitted_box([pair(3.0, (True, True, False), cell)], None, 6.0)
    assert fitted_box([pair(3.0, True, cell)], None, 6.0) is None


def test_periodic_frames_among_molecules(tmp_path, capsys):
    frames = hexafluorides(9)
    frames.insert(3, labelled(bulk("Cu", cubic=True), 3))
    path = written(tmp_path, frames)
    options = ("from-xyz", path, "--train", 8, "--val", 2, "--energy-reference", "none")
    assert data(*options, "--out", tmp_path / "a") == 2
    text = "1 of 10 frames are periodic (first: frame 3 of"
    assert text in (error := capsys.readouterr().err) and "9 are not" in error
    assert data(*options, "--out", tmp_path / "b", "--config-out", tmp_path / "c.yml") == 2
    assert text in capsys.readouterr().err and not (tmp_path / "c.yml").exists()
    fresh(tmp_path, *options, "--box", 20)
    assert f"warning: {text}" in capsys.readouterr().out


def test_kcal_read_as_ev(tmp_path, capsys):
    path = written(tmp_path, hexafluorides(scale=23.06))
    fresh(tmp_path, "from-xyz", path, *SPLIT)
    said = capsys.readouterr().out
    assert "warning: an rms force of" in said and "23 times too large" in said
    assert "--energy-unit" in said
    fresh(tmp_path, "from-xyz", path, *SPLIT, "--energy-unit", "kcal/mol", out="right")
    assert "warning" not in capsys.readouterr().out


def test_hartree_per_bohr_and_bohr_read_as_ev(tmp_path, capsys):
    frames = hexafluorides(scale=1 / 51.4)
    for frame in frames:
        positions = frame.positions / 0.529177
        results = frame.calc.results
        frame.positions = positions
        frame.calc = SinglePointCalculator(frame, **results)
    fresh(tmp_path, "from-xyz", written(tmp_path, frames, "a.traj"), *SPLIT)
    said = capsys.readouterr().out
    assert "51 times too small" in said and "in Bohr" not in said  # 3.8 A: could be a metal
    options = ("--energy-unit", "Hartree", "--length-unit", "Bohr")
    fresh(tmp_path, "from-xyz", tmp_path / "a.traj", *SPLIT, *options, out="right")
    assert "warning" not in capsys.readouterr().out


def test_incomplete_frames_are_counted_and_left_out(tmp_path, capsys):
    frames = hexafluorides(12)
    frames[4].calc = SinglePointCalculator(frames[4], energy=-1.0)
    frames[7].calc = None
    frames[9].calc.results["forces"][0, 0] = np.nan
    path = written(tmp_path, frames, "a.traj")
    assert data("from-xyz", path, *SPLIT, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "frame 4 of" in error and "no forces" in error and "3 of 12 frames" in error
    assert "--skip-incomplete" in error and not (tmp_path / "out").exists()
    fresh(tmp_path, "from-xyz", path, *SPLIT, "--skip-incomplete")
    assert "3 of 12 frames are left out; the first: frame 4 of" in capsys.readouterr().out
    found = [*records(tmp_path / "out/train"), *records(tmp_path / "out/val")]
    assert {record.fid for record in found} <= {0, 1, 2, 3, 5, 6, 8, 10, 11}
    for record in found:
        assert np.allclose(record.pos, frames[record.fid].positions, atol=1e-6)


def test_an_energy_that_is_no_number(tmp_path, capsys):
    frames = hexafluorides()
    for frame in frames:
        frame.info["note"] = "relaxed"
    path = written(tmp_path, frames)
    options = ("from-xyz", path, *SPLIT, "--out", tmp_path / "out", "--energy-key", "note")
    assert data(*options) == 2
    assert "--energy-key note: 'relaxed' is not one number" in capsys.readouterr().err


def test_a_reference_of_fewer_compositions_than_elements(tmp_path, capsys):
    """Energies of other compositions are a guess: the same energy for every atom, and a warning."""
    numbers = [np.array([1, 6]), np.array([1, 1, 6, 6]), np.array([7, 8, 8])]
    energies = np.array([-20.0, -40.0, -30.2])
    reference = energy_reference.fit("linear", numbers, energies)
    assert "4 elements" in reference.warning and "2 independent" in reference.warning
    fitted = [reference.of(each) for each in numbers]
    assert fitted == pytest.approx(energies)  # as the smallest norm would
    # the smallest norm gives N -6.04 and O -12.08
    assert all(-10.5 < value < -9.5 for value in reference.coefficients.values())
    enough = energy_reference.fit("linear", [*numbers, np.array([1, 1]), np.array([8, 8])],
                                  np.array([*energies, -6.0, -10.0]))  # fmt: skip
    assert enough.warning is None and enough.coefficients[1] == pytest.approx(-3)

    frames = [labelled(molecule(name), i) for i, name in enumerate(("CH4", "N2O", "CH4", "N2O"))]
    frames += [labelled(molecule("CH3OH"), 5, energy=-200.0), labelled(molecule("HCN"), 6)]
    options = ("--train", 4, "--val", 2, "--seed", 0)
    ase.io.write(tmp_path / "val.xyz", frames[4:])
    path = written(tmp_path, frames[:4])
    fresh(tmp_path, "from-xyz", path, "--val-file", tmp_path / "val.xyz", *options, "--test", 0)
    said = capsys.readouterr()
    said = said.out + said.err
    assert "warning: the linear energy reference of 4 elements" in said
    assert "warning: the energies of val differ" in said


def test_aselmdb(tmp_path):
    pytest.importorskip("ase_db_backends")
    frames = hexafluorides()
    with ase.db.connect(str(tmp_path / "a.aselmdb"), use_lock_file=False) as database:
        for frame in frames:
            database.write(frame)
    (tmp_path / "a.aselmdb").chmod(0o444)
    fresh(tmp_path, "from-xyz", tmp_path / "a.aselmdb", "--index", "1:", *SPLIT)
    for record in records(tmp_path / "out/train"):
        assert np.allclose(record.pos, frames[record.fid + 1].positions, atol=1e-6)
