"""Equal to the authors' code: predictions of their models for the same weights and batch."""

import pytest
import torch
from torch_geometric.data import Batch

from dens_ocp.dens.step_plan import read
from tests.conftest import build_model


def relative(ours, theirs):
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("case", ["s2ef", "partial", "full"])
@pytest.mark.parametrize("name", ["equiformer_v2_dens", "escn_dens"])
def test_predictions_of_the_authors_code(shared, name, case):
    reference = torch.load(shared / "reference" / f"{name}.pt", weights_only=False)
    model = build_model({"name": name, **reference["config"]}).eval()
    wrapped = {f"module.module.{key}": value for key, value in reference["state_dict"].items()}
    assert model.load_state_dict(wrapped, strict=True).missing_keys == []
    batch = Batch(**reference["batch"])
    expected = reference["cases"][case]
    batch.pos = expected["pos"].clone()
    torch.manual_seed(reference["seed_before_forward"])
    if case == "s2ef":
        outputs = model(batch)
        forces = outputs["forces"]
    else:
        batch.denoising_pos_forward = True
        if case == "partial":
            batch.noise_mask = expected["noise_mask"]
        outputs = model.denoise(batch)
        noisy = read(batch).noise_mask[:, None]
        forces = torch.where(noisy, outputs["noise"], outputs["forces"])
    assert relative(outputs["energy"], expected["energy"]) < 1e-5
    assert relative(forces, expected["forces"]) < 1e-5
