"""Models of the authors' contract: fairchem's own, and one of a few lines."""

import copy

import pytest
import torch
from fairchem.core.common.registry import registry
from fairchem.core.models.equiformer_v2 import equiformer_v2_dens  # noqa: F401 (registers)
from fairchem.core.models.esen import esen_dens  # noqa: F401 (registers)
from torch_geometric.data import Batch

from dens_ocp.dens.step_plan import read
from dens_ocp.errors import DensError
from dens_ocp.models import authors_contract
from dens_ocp.models.denoising_model import DenoisingModel
from tests.conftest import ROOT, SMALL_EQUIFORMER, SMALL_ESEN, slab
from tests.lmdbs import write_s2ef
from tests.models.test_models import corrupted
from tests.runs import DENS, logged, make_trainer, run, small_config, write_config
from tests.test_readme import blocks

EQV2 = {name: value for name, value in SMALL_EQUIFORMER.items() if name != "name"}
ESEN = {name: value for name, value in SMALL_ESEN.items() if name != "name"} | {"otf_graph": True}
HYDRAS = {
    "eSEN": {
        "name": "hydra",
        "backbone": {"model": "esen_backbone_dens", **ESEN},
        "heads": {
            "energy": {"module": "esen_mlp_energy_head"},
            "forces": {"module": "esen_linear_force_head_dens"},
        },
    },
    "EquiformerV2": {
        "name": "hydra",
        "pass_through_head_outputs": True,
        "backbone": {"model": "equiformer_v2_dens_backbone", **EQV2},
        "heads": {
            "energy": {"module": "eqV2_DeNS_scalar_head"},
            "forces": {"module": "eqV2_DeNS_vector_head"},
        },
    },
}
ALL_ZERO = {
    **HYDRAS["eSEN"],
    "pass_through_head_outputs": True,
    "backbone": {**HYDRAS["eSEN"]["backbone"], "direct_forces": False},
    "heads": {"energy": {"module": "esen_mlp_efs_head_dens"}},
}
hydras = pytest.mark.parametrize("config", HYDRAS.values(), ids=HYDRAS.keys())


@registry.register_model("springs")
class Springs(torch.nn.Module):
    """The example of docs/models.md: a harmonic force on each atom, and the mean of its force."""

    def __init__(self, stiffness: float = 0.5):
        super().__init__()
        self.stiffness = torch.nn.Parameter(torch.tensor(stiffness))
        self.encoding = torch.nn.Parameter(torch.tensor(0.3))

    def forward(self, data):
        centre = torch.zeros(len(data.natoms), 3).index_add_(0, data.batch, data.pos)
        arms = data.pos - (centre / data.natoms[:, None])[data.batch]
        vectors = -self.stiffness * arms
        if getattr(data, "denoising_pos_forward", False):  # forces of corrupted atoms are input
            encoded = self.encoding * data.forces
            vectors = torch.where(data.noise_mask[:, None], vectors + encoded, vectors)
        energy = 0.5 * self.stiffness * (arms**2).sum(1)
        energies = torch.zeros(len(data.natoms)).index_add_(0, data.batch, energy)
        return {"energy": energies, "forces": vectors}


def built(config):
    options = copy.deepcopy(config)
    torch.manual_seed(0)
    return registry.get_model_class(options.pop("name"))(**options)


def leaf(outputs, name):
    value = outputs[name]
    return value if isinstance(value, torch.Tensor) else value[name]


def test_the_model_of_the_document():
    (code,) = [
        text for kind, text in blocks(ROOT / "docs" / "models.md", "python") if kind == "model"
    ]
    code = code.replace('"springs"', '"springs_of_the_document"')
    found: dict = {}
    exec(code, found)
    data = corrupted(Batch.from_data_list([slab("Cu", "O", 0)]))
    theirs, ours = found["Springs"]()(data), Springs()(data)
    assert all(torch.equal(theirs[name], ours[name]) for name in ours)
    found["Springs"].follows_authors_contract = True  # it has no file here
    assert authors_contract.follows(found["Springs"]())
    assert len(code.strip().splitlines()) <= 27


@hydras
def test_inspection_finds_them(config):
    model = built(config)
    before = list(model.state_dict())
    assert authors_contract.follows(model) and authors_contract.follows(Springs())
    authors_contract.adopt(model)
    assert isinstance(model, DenoisingModel) and list(model.state_dict()) == before
    assert type(model).__name__ == "HydraModel"


def test_others_do_not_follow():
    plain = {**HYDRAS["eSEN"], "backbone": {**ESEN, "model": "esen_backbone"}}
    plain["heads"] = {
        "energy": {"module": "esen_mlp_energy_head"},
        "forces": {"module": "esen_linear_force_head"},
    }
    assert not authors_contract.follows(built(plain))


def test_a_class_without_source_declares_it():
    cls = type("Hidden", (torch.nn.Module,), {"follows_authors_contract": True})
    assert authors_contract.follows(cls())
    assert not authors_contract.follows(type("Hidden", (torch.nn.Module,), {})())


@hydras
def test_noise_and_forces_of_a_step(config, batch):
    model, theirs = built(config), built(config)
    authors_contract.adopt(model)
    data = corrupted(batch)
    torch.manual_seed(0)
    expected = theirs.train()(data.clone())
    torch.manual_seed(0)
    outputs = model.train()(data.clone())
    assert torch.equal(leaf(outputs, "forces"), leaf(expected, "forces"))
    assert torch.equal(outputs["noise"], leaf(expected, "forces"))
    assert torch.equal(leaf(outputs, "energy"), leaf(expected, "energy"))


@hydras
def test_evaluation_never_sees_forces(config, batch):
    model = built(config).eval()
    torch.manual_seed(0)
    expected = model(batch.clone())
    authors_contract.adopt(model)
    data = corrupted(batch.clone())
    data.pos, data.forces = batch.pos, torch.full_like(batch.forces, torch.nan)
    torch.manual_seed(0)
    outputs = model(data)
    assert "noise" not in outputs and "forces" in data and "noise_mask" in data
    for name in ("energy", "forces"):
        assert torch.equal(leaf(outputs, name), leaf(expected, name))


@pytest.fixture
def data(tmp_path):
    write_s2ef(tmp_path / "train", 12, seed=0)
    write_s2ef(tmp_path / "val", 6, seed=1)
    return tmp_path


@pytest.mark.parametrize("choice", ["structure", "batch"])
def test_the_loss_by_hand(data, choice):
    dens = {**DENS, "p": 0.99, "choice": choice}
    trainer = make_trainer(small_config(data, {"name": "springs"}, dens), data)
    assert isinstance(trainer.model, Springs) and trainer._can_denoise
    trainer.model.train()
    batch = next(iter(trainer.train_loader))
    outputs = trainer._forward(batch)
    terms = trainer.loss_terms(outputs, batch)
    noisy, free = read(batch).noise_mask, batch.fixed == 0
    assert noisy.any() and (free & ~noisy).any()
    expected_noise = expected_forces = 0.0
    vectors = Springs()(batch)["forces"]
    for atom in torch.nonzero(free)[:, 0].tolist():
        if noisy[atom]:
            error = vectors[atom] - batch.noise_vec[atom] / 0.1
            expected_noise += 10 * error.norm() / free.sum()
        else:
            error = vectors[atom] - batch.forces[atom] / 1.7
            expected_forces += 100 * error.norm() / free.sum()
    assert torch.isclose(terms["noise"], expected_noise, rtol=1e-5)
    assert torch.isclose(terms["forces"], expected_forces, rtol=1e-5)
    assert batch.dens_batch_mask.tolist() == read(batch).structure_mask.tolist()
    energies = Springs()(batch)["energy"] - (batch.energy + 0.3) / 1.4
    assert torch.isclose(terms["energy"], 2 * energies.abs().mean(), rtol=1e-5)


@pytest.mark.parametrize("model", ["eSEN", "springs"])
def test_a_run(data, model):
    """Train, resume, validate through the command line; eSEN as fairchem's hydra model."""
    config = small_config(data, HYDRAS.get(model, {"name": model}))
    path = write_config(data / "config.yml", config)
    if model == "springs":  # known in this process only
        trainer = make_trainer(config, data, is_debug=False)
        trainer.train()
        return
    run("train", path, "--timestamp-id", "a", cwd=data)
    lines = logged(data, "a")
    assert any(line.get("loss_noise") for line in lines)
    checkpoint = data / "checkpoints" / "a" / "checkpoint.pt"
    names = torch.load(checkpoint, weights_only=False)["state_dict"]
    assert any(name.endswith("output_heads.forces.denoising_linear.weight") for name in names)
    run("train", path, "--timestamp-id", "a", "--checkpoint", str(checkpoint),
        "--optim.max_epochs=3", cwd=data)  # fmt: skip
    assert len(logged(data, "a")) == len(lines) * 3 // 2
    run("validate", path, "--checkpoint", str(checkpoint), cwd=data)


# ---- heads that leave out the energy of a whole batch ----------------------------------------


def two_structures(corrupted_ones=2):
    data = corrupted(Batch.from_data_list([slab("Cu", "O", 0), slab("Pt", "N", 1)]))
    data.noise_mask = data.noise_mask & (data.batch < corrupted_ones)
    assert read(data).structure_mask.sum() == corrupted_ones
    return data


def test_energies_that_are_left_out(caplog):
    model = built(ALL_ZERO)
    authors_contract.adopt(model)
    caplog.set_level("INFO")
    model.train()(two_structures(0))  # a batch of which nothing was drawn says nothing
    assert model.use_denoising_energy
    model(two_structures())  # nothing is lost but the energy's loss
    assert not model.use_denoising_energy and not model.left_out_of_batches
    assert caplog.text.count("gives no energy for DeNS structures") == 1
    for _ in range(2):
        model(two_structures(1))
    assert model.left_out_of_batches == ("energy",)


@hydras
def test_others_are_not_refused(config):
    model = built(config)
    authors_contract.adopt(model)
    for ones in (0, 2, 1):
        model.train()(two_structures(ones))
    assert model.use_denoising_energy and not model.left_out_of_batches


def test_through_the_trainer(data):
    """With one choice for a batch it trains, with no loss of energies that are not there; with one
    for each structure it says what to do."""
    config = small_config(data, ALL_ZERO, {**DENS, "choice": "batch", "p": 1, "r": 0.1})
    trainer = make_trainer(config, data, is_debug=False)
    trainer.train()
    model = trainer._unwrapped_model
    assert not model.use_denoising_energy and model.left_out_of_batches == ("energy",)
    trainer.model.train()
    trainer.step = 0  # two of three structures are drawn
    batch = next(iter(trainer.train_loader))
    terms = trainer.loss_terms(trainer._forward(batch), batch)
    assert 0 < read(batch).structure_mask.sum() < 3
    assert terms["energy"] == 0 < terms["forces"]
    config["optim"]["dens"]["choice"] = "structure"
    with pytest.raises(DensError, match=r"choice: structure.*set optim\.dens\.choice: batch"):
        make_trainer(config, data, is_debug=False).train()
