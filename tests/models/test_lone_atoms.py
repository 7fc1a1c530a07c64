"""Batches in which no atom has a neighbour: as the same atoms beside others, everywhere."""

import copy

import numpy as np
import pytest
import torch
from ase import Atoms
from torch_geometric.data import Batch

from dens_ocp.dens.step_plan import Corruption, read
from tests.conftest import SMALL_EQUIFORMER, SMALL_ESCN, SMALL_ESEN, build_model, slab
from tests.lmdbs import write_lmdb
from tests.molecules import SMALL_EQUIFORMER_L2
from tests.plans import attach, attach_scored
from tests.relaxation import relaxations
from tests.runs import make_trainer, small_config

MODELS = {
    "equiformer_v2": {**SMALL_EQUIFORMER, "fast": True},
    "equiformer_v2, fairchem's path": {**SMALL_EQUIFORMER, "fast": False},
    "equiformer_v2, sigma encoding": {
        **SMALL_EQUIFORMER, "use_noise_schedule_sigma_encoding": True,
        "share_atom_edge_embedding": True, "use_atom_edge_embedding": True,
    },
    "escn": {**SMALL_ESCN, "fast": True},
    "escn, fairchem's path": {**SMALL_ESCN, "fast": False},
    "esen": {**SMALL_ESEN, "fast": True},
    "esen, fairchem's path": {**SMALL_ESEN, "fast": False},
    "esen with gradient forces": {**SMALL_ESEN, "forces": "gradient", "regress_stress": True},
    "equiformer": {**SMALL_EQUIFORMER_L2, "use_pbc": False},
    "equiformer, periodic": {**SMALL_EQUIFORMER_L2, "use_pbc": True},
}  # fmt: skip
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())


def lone(number: int, sid: int, copies: int = 1):
    """Atoms far from each other."""
    record = slab(seed=sid)
    for name in ("pos", "tags", "forces", "atomic_numbers", "fixed"):
        record[name] = record[name][-1:].repeat(copies, *[1] * (record[name].dim() - 1))
    record.pos[:, 0] += 20.0 * torch.arange(copies)
    record.cell = 60.0 * torch.eye(3)[None]
    record.fixed[:] = 0
    record.natoms, record.atomic_numbers[:] = copies, number
    return record


def records():
    return [lone(29, 0), lone(8, 1), lone(1, 2, copies=2)]


@models
def test_evaluation(model):
    built = build_model(model).eval()
    for alone in ([lone(29, 0)], records()):
        mixed = Batch.from_data_list([slab(), *alone])
        batch = Batch.from_data_list(alone)
        kept = copy.deepcopy(batch.to_dict())
        with torch.no_grad():
            expected, found = built(mixed), built(batch)
        atoms = batch.pos.shape[0]
        assert torch.allclose(found["energy"], expected["energy"][1:], rtol=1e-6, atol=1e-9)
        assert found["forces"].shape == (atoms, 3)
        assert torch.allclose(found["forces"], expected["forces"][-atoms:], atol=1e-7)
        for name, value in batch.to_dict().items():  # the batch is as it was
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(kept[name])), name


@models
def test_training(model):
    """Corrupted atoms too; every parameter is in the graph, as DDP wants it."""
    built = build_model(model).train()
    outputs = []
    for others in ([], [slab()]):
        batch = Batch.from_data_list([*records(), *others])
        mask = torch.zeros(len(batch.pos), dtype=torch.bool)
        mask[1:3] = True
        noise = torch.full_like(batch.pos, 0.1) * mask[:, None]
        structures = torch.zeros(batch.natoms.numel(), dtype=torch.bool)
        structures[1:3] = True
        attach(batch, Corruption(mask, noise, 0.1 * mask[:, None].float(), structures))
        attach_scored(batch, torch.ones_like(mask))
        outputs.append(built(batch))
        assert torch.equal(read(batch).noise_mask, mask)
    found, expected = outputs
    assert torch.allclose(found["energy"], expected["energy"][:3], rtol=1e-6, atol=1e-9)
    for name in ("forces", "noise"):
        assert found[name].shape == (4, 3)
        assert torch.allclose(found[name], expected[name][:4], atol=1e-7)
    sum(value.square().sum() for value in found.values()).backward()
    trained = [(name, each) for name, each in built.named_parameters() if each.requires_grad]
    silent = [name for name, each in trained if each.grad is None]
    assert silent == []


@pytest.fixture(params=["equiformer_v2", "escn", "equiformer, periodic"])
def settings(request, tmp_path):
    labelled = records()
    for record in labelled:
        record.y, record.force = record.energy, record.forces
        record.y_relaxed, record.pos_relaxed = record.y, record.pos
        del record.energy, record.forces
    data = str(write_lmdb(tmp_path / "lone.lmdb", labelled))
    settings = small_config(tmp_path, model=MODELS[request.param], eval_batch_size=2)
    settings["dataset"]["train"]["src"] = data
    for split in ("val", "test", "relax"):
        settings["dataset"][split] = {"src": data}
    del settings["optim"]["load_balancing"]
    if request.param == "equiformer, periodic":
        settings["dataset"]["train"]["transforms"]["normalizer"].pop("forces")
    task = {"prediction_dtype": "float32", "write_pos": True, "relaxation_steps": 3}
    settings["task"] = {**task, "relax_opt": {"traj_dir": str(tmp_path / "traj")}}
    return settings


def test_all_that_is_done_with_a_model(settings, tmp_path):
    """Training, validation, prediction, relaxation; and the calculator says the same."""
    from fairchem.core import OCPCalculator

    trainer = make_trainer(settings, tmp_path, is_debug=False, timestamp_id="run")
    trainer.train(disable_eval_tqdm=True)
    assert trainer.step == 2
    best = tmp_path / "checkpoints" / "run" / "best_checkpoint.pt"
    with np.load(tmp_path / "results" / "run" / "ocp_predictions.npz") as file:
        energies = dict(zip(file["ids"].tolist(), file["energy"][:, 0].tolist(), strict=True))
    assert np.isfinite(list(energies.values())).all() and len(energies) == 3

    settings["dataset"]["train"]["src"] = None
    trainer = make_trainer(settings, tmp_path, is_debug=False, timestamp_id="one")
    trainer.load_checkpoint(str(best))
    trainer.run_relaxations()
    frames = relaxations.last_frames(tmp_path / "traj")
    assert set(frames) == {"0", "1", "2"}
    for record in records():
        atoms = Atoms(record.atomic_numbers, record.pos, cell=record.cell[0], pbc=True)
        atoms.calc = OCPCalculator(checkpoint_path=best, cpu=True, seed=0)
        energy = atoms.get_potential_energy()
        assert energy == pytest.approx(energies[f"{record.sid}_0"], abs=1e-5)
        assert atoms.get_forces().shape == (record.natoms, 3)
        assert frames[str(record.sid)].get_potential_energy() == pytest.approx(energy, abs=1e-3)
