"""Databases of ASE in folders whose structures are not corrupted (EquiformerV3's skip_dens.txt)."""

import ase.db
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from fairchem.core.common.registry import registry
from fairchem.core.datasets import data_list_collater

from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.corruption import corrupt, step_generator
from tests.runs import run, small_config, write_config


def write(folder, sizes, skip):
    """One database of each size."""
    folder.mkdir()
    for number, size in enumerate(sizes):
        with ase.db.connect(folder / f"{number}.db") as database:
            for index in range(size):
                atoms = bulk("Cu", cubic=True)
                atoms.rattle(0.1, seed=index)
                results = {"energy": float(index), "forces": atoms.positions * 0.1}
                atoms.calc = SinglePointCalculator(atoms, **results)
                database.write(atoms)
    if skip:
        (folder / "skip_dens.txt").touch()
    return folder


def options(*folders):
    return {
        "format": "dens_ase_db", "src": [str(each) for each in folders],
        "a2g_args": {"r_energy": True, "r_forces": True},
    }  # fmt: skip


def test_flags_follow_the_folder(tmp_path):
    folders = write(tmp_path / "a", (2, 1), False), write(tmp_path / "b", (3,), True)
    dataset = registry.get_dataset_class("dens_ase_db")(options(*folders))
    records = dataset[0:6]
    assert [bool(each.skip_dens) for each in records] == [False] * 3 + [True] * 3
    batch = data_list_collater(records, otf_graph=True)
    assert batch.skip_dens.shape == (6,)
    corruption = corrupt(
        pos=batch.pos, forces=batch.forces, fixed=batch.fixed, batch=batch.batch,
        natoms=batch.natoms, skip=batch.skip_dens, config=DeNSConfig(p=1, r=1),
        generator=step_generator(0, 0, 1),
    )  # fmt: skip
    assert torch.equal(corruption.structure_mask, ~batch.skip_dens)


def test_a_run_leaves_them_as_they_are(tmp_path):
    """Nothing of a run on such a folder is corrupted; without the file, all of it."""
    for name, skip in (("some", False), ("none", True)):
        folder = write(tmp_path / name, (8,), skip)
        config = small_config(tmp_path, dens={"p": 1, "r": 1}, max_epochs=1)
        config["dataset"]["train"] |= options(folder)
        config["dataset"]["train"].pop("key_mapping")
        config["dataset"].pop("val")
        run(
            "train",
            write_config(tmp_path / f"{name}.yml", config),
            "--timestamp-id",
            name,
            cwd=tmp_path,
        )
        lines = [line for line in (tmp_path / "checkpoints" / name).glob("*.jsonl")]
        text = lines[0].read_text()
        assert ("noise_mae" in text) is (name == "some"), text[:2000]
