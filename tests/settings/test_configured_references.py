"""Normalizers and element references of the config where the training set is switched off."""

import copy

import numpy as np
import pytest
import torch
import yaml
from fairchem.core.common.utils import create_dict_from_args, merge_dicts

from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.jobs import jobs_of
from dens_ocp.results.pipeline.options import load_settings
from dens_ocp.settings import config_file, configured_references
from dens_ocp.settings import overrides as given
from tests.lmdbs import s2ef_records, write_lmdb
from tests.runs import make_trainer, small_config


@pytest.fixture(scope="module")
def coefficients() -> np.ndarray:
    """eV of an atom by atomic number."""
    return np.linspace(-1.0, -9.0, 100)


@pytest.fixture(scope="module")
def settings(tmp_path_factory, coefficients) -> dict:
    """A config with total energies, labels of other names, and a checkpoint of its model."""
    folder = tmp_path_factory.mktemp("total")
    records = s2ef_records(4)
    for record in records:
        record.total = record.y + float(coefficients[record.atomic_numbers.long()].sum())
        del record.y
    write_lmdb(folder / "val.lmdb", records)
    np.savez(folder / "references.npz", coeff=coefficients)
    config = small_config(folder)
    train = config["dataset"]["train"]
    train["key_mapping"] = {"total": "energy", "force": "forces"}
    train["transforms"]["element_references"] = {"energy": {"file": str(folder / "references.npz")}}
    config["dataset"]["val"] = {"src": str(folder / "val.lmdb")}
    del config["optim"]["load_balancing"]
    return config


def off(config: dict) -> dict:
    """The config after ``--dataset.train=None``, as the command line makes it."""
    overrides = configured_references.keeping_settings(["--dataset.train=None"])
    return merge_dicts(config, create_dict_from_args(overrides))[0]


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory) -> dict:
    """A checkpoint that holds all, in the form of fairchem's."""
    trainer = make_trainer(off(settings), tmp_path_factory.mktemp("run"))
    return {
        "state_dict": copy.deepcopy(trainer.model.state_dict()),
        "normalizers": {name: each.state_dict() for name, each in trainer.normalizers.items()},
        "elementrefs": {name: each.state_dict() for name, each in trainer.elementrefs.items()},
        "config": copy.deepcopy({**trainer.config, "dataset": settings["dataset"]["train"]}),
    }


def energy_mae(config: dict, checkpoint: dict, folder) -> float:
    torch.save(checkpoint, folder / "checkpoint.pt")
    trainer = make_trainer(config, folder)
    trainer.load_checkpoint(str(folder / "checkpoint.pt"))
    return trainer.validate(disable_tqdm=True)["energy_mae"]["metric"]


LACKS = {
    "references": {"elementrefs": {}},
    "normalizers": {"normalizers": {}},
    "both, as null": {"elementrefs": None, "normalizers": {}},
    "both": None,
}


def lacking(whole: dict, what: str) -> dict:
    if LACKS[what] is None:
        return {key: value for key, value in whole.items() if key[-4:] not in ("refs", "zers")}
    return {**whole, **LACKS[what]}


@pytest.mark.parametrize("what", LACKS)
def test_what_the_checkpoint_lacks_is_read_from_the_config(settings, whole, tmp_path, what):
    expected = energy_mae(off(settings), whole, tmp_path)
    checkpoint = {**lacking(whole, what), "config": {}}
    assert expected < 10
    assert energy_mae(off(settings), checkpoint, tmp_path) == pytest.approx(expected, abs=1e-6)


def test_from_the_config_of_the_checkpoint(settings, whole, tmp_path):
    """The trainer sees no section of a training set at all; the checkpoint remembers its own."""
    config = copy.deepcopy(settings)
    config["dataset"]["val"]["key_mapping"] = config["dataset"]["train"]["key_mapping"]
    config["dataset"]["train"] = None
    expected = energy_mae(config, whole, tmp_path)
    assert energy_mae(config, lacking(whole, "both"), tmp_path) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("what", LACKS)
def test_the_calculator(whole, tmp_path, what):
    from ase.build import molecule
    from fairchem.core import OCPCalculator

    atoms = molecule("H2O", cell=[9.0] * 3, pbc=True)
    energies = []
    for name, checkpoint in (("whole", whole), ("lacks", lacking(whole, what))):
        torch.save(checkpoint, tmp_path / f"{name}.pt")
        atoms.calc = OCPCalculator(checkpoint_path=tmp_path / f"{name}.pt", cpu=True, seed=0)
        energies.append(atoms.get_potential_energy())
    assert energies[1] == pytest.approx(energies[0], abs=1e-4)


@pytest.mark.parametrize(
    "references",
    [{"energy": {"file": "gone.npz"}}, {"fit": {"targets": ["energy"], "batch_size": 2}},
     {"file": "gone.pt"}],
)  # fmt: skip
def test_refused_only_where_they_are_needed(settings, whole, tmp_path, references):
    config = copy.deepcopy(off(settings))
    config["dataset"]["train"]["transforms"]["element_references"] = references
    expected = energy_mae(off(settings), whole, tmp_path)
    assert energy_mae(config, whole, tmp_path) == pytest.approx(expected, abs=1e-6)
    lacks = {**lacking(whole, "references"), "config": {}}
    with pytest.raises(DensError, match="has no element_references of .*transforms.element_ref"):
        energy_mae(config, lacks, tmp_path)


def test_references_of_another_size(settings, whole, tmp_path):
    """The checkpoint's are taken, whatever the config's file holds."""
    config = copy.deepcopy(off(settings))
    np.savez(tmp_path / "other.npz", coeff=np.zeros(40))
    config["dataset"]["train"]["transforms"]["element_references"] = {
        "energy": {"file": str(tmp_path / "other.npz")}
    }
    expected = energy_mae(off(settings), whole, tmp_path)
    assert energy_mae(config, whole, tmp_path) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", ["None", "null", "", "False"])
def test_a_section_is_switched_off_with_its_data_only(settings, tmp_path, value):
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump(settings))
    overrides = configured_references.keeping_settings([f"--dataset.train={value}", "--a.b=None"])
    assert overrides == ["--dataset.train.src=None", "--a.b=None"]
    config = given.applied(config_file.read(path), overrides)
    assert config["dataset"]["train"] == {**settings["dataset"]["train"], "src": None}


def test_dens_ocp_evaluate_hands_them_on(settings, tmp_path):
    path = tmp_path / "evaluate.yml"
    evaluation = {"evaluation": {"s2ef": {"id": "a"}, "is2re": {"id": "b"}}}
    path.write_text(yaml.safe_dump({**settings, **evaluation}))
    loaded = load_settings(path, {"config": {}}, [])
    for job in jobs_of(loaded, EvaluationFolder(tmp_path / "out")):
        transforms = job.config["dataset"]["train"]["transforms"]
        assert transforms == settings["dataset"]["train"]["transforms"]
