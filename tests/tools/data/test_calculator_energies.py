"""Energies of a calculator are total energies where ``dens-ocp data`` subtracted a reference."""

import copy
import json
import logging

import ase.io
import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from dens_ocp.data import dataset_reference
from dens_ocp.tools.cli import main
from tests.runs import make_trainer, small_config

PER_ATOM = {"H": -13.6, "C": -1030.0, "O": -2041.0}  # eV, as of all electrons


@pytest.fixture(scope="module")
def frames():
    """Rattled molecules of three compositions."""
    found = []
    for index in range(12):
        atoms = molecule(("CH3OH", "H2O", "CH4")[index % 3])
        atoms.rattle(0.05, seed=index)
        atoms.calc = EMT()
        total = atoms.get_potential_energy() + sum(PER_ATOM[s] for s in atoms.symbols)
        atoms.calc = SinglePointCalculator(atoms, energy=total, forces=atoms.get_forces())
        found.append(atoms)
    return found


@pytest.fixture(scope="module")
def run(frames, tmp_path_factory):
    """A converted data set and the checkpoint of a short training on it."""
    folder = tmp_path_factory.mktemp("molecules")
    ase.io.write(folder / "all.xyz", frames)
    words = ["data", "from-xyz", str(folder / "all.xyz"), "--train", "8", "--val", "4",
             "--box", "50", "--out", str(folder / "data")]  # fmt: skip
    assert main(words) == 0
    settings = small_config(folder / "data", max_epochs=1)
    del settings["optim"]["load_balancing"]
    trainer = make_trainer(settings, folder, is_debug=False, timestamp_id="run")
    trainer.train(disable_eval_tqdm=True)
    return folder, trainer


def calculator(path):
    from fairchem.core import OCPCalculator

    return OCPCalculator(checkpoint_path=path, cpu=True, seed=0)


def relative(calc, atoms):
    """What the model itself says, eV."""
    reference, calc.trainer.dataset_reference = calc.trainer.dataset_reference, None
    calc.reset()
    try:
        return calc.get_potential_energy(atoms)
    finally:
        calc.trainer.dataset_reference = reference
        calc.reset()


def in_a_box(atoms):
    atoms = atoms.copy()
    atoms.cell, atoms.pbc = 50 * np.eye(3), True
    return atoms


@pytest.mark.parametrize("name", ["checkpoint.pt", "best_checkpoint.pt", "older"])
def test_total_energies(run, frames, tmp_path, name):
    folder, _ = run
    path = folder / "checkpoints" / "run" / name
    if name == "older":  # written before checkpoints knew the reference
        whole = torch.load(folder / "checkpoints" / "run" / "checkpoint.pt", weights_only=False)
        del whole[dataset_reference.CHECKPOINT_ENTRY]
        path = tmp_path / "older.pt"
        torch.save(whole, path)
    calc = calculator(path)
    by_symbol = json.loads((folder / "data" / "dataset.json").read_text())["energy"]["reference_eV"]
    for frame in frames[:3]:
        atoms = in_a_box(frame)
        own = relative(calc, atoms)
        expected = own + sum(by_symbol[symbol] for symbol in atoms.symbols)
        assert abs(own) < 10
        assert calc.get_potential_energy(atoms) == pytest.approx(expected, abs=1e-9)
        assert calc.get_potential_energy(atoms) == pytest.approx(
            frame.get_potential_energy(), abs=10
        )


def test_everything_else_is_of_the_labels(run, tmp_path):
    """Validation and predictions, also with this checkpoint, have no reference."""
    folder, trained = run
    settings = copy.deepcopy(small_config(folder / "data"))
    settings["dataset"]["train"]["src"] = None
    settings["dataset"]["test"] = settings["dataset"]["val"]
    del settings["optim"]["load_balancing"]
    trainer = make_trainer(settings, tmp_path)
    trainer.load_checkpoint(str(folder / "checkpoints" / "run" / "checkpoint.pt"))
    assert trainer.validate(disable_tqdm=True)["energy_mae"]["metric"] < 10
    (batch,) = list(trainer.test_loader)[:1]
    assert trainer.predict(batch, per_image=False, disable_tqdm=True)["energy"].abs().max() < 10


def test_an_element_without_a_reference(run, caplog):
    calc = calculator(run[0] / "checkpoints" / "run" / "checkpoint.pt")
    atoms = in_a_box(molecule("NH3"))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            calc.reset()
            calc.get_potential_energy(atoms)
    said = [each for each in caplog.messages if "so it has no reference energy" in each]
    assert len(said) == 1 and said[0].startswith("N: the training set does not have this element")


def test_other_data_sets_have_none(tmp_path):
    for text in ("{}", "[1]", "no json", '{"written_by": "someone", "energy": {}}'):
        (tmp_path / "dataset.json").write_text(text)
        assert dataset_reference.beside(tmp_path / "train") is None
    assert dataset_reference.beside(None) is None and dataset_reference.beside("") is None
    nothing = {"written_by": "dens-ocp data", "energy": {"reference_eV": {}}}
    (tmp_path / "dataset.json").write_text(json.dumps(nothing))
    assert dataset_reference.beside(str(tmp_path / "train" / "data.0000.lmdb")) is None
    nothing["energy"]["reference_eV"] = {"H": -13.0}
    (tmp_path / "dataset.json").write_text(json.dumps(nothing))
    for src in ("train", "train/data.0000.lmdb", "."):
        found = dataset_reference.beside(str(tmp_path / src))
        assert found == {1: -13.0}
