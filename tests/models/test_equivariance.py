"""Rotation, translation, permutation and batching, with force encoding active."""

import torch
from e3nn import o3
from torch_geometric.data import Batch

from tests.conftest import build_model
from tests.models.test_models import ALL, corrupted

# eSCN's force block is a quadrature over points of the sphere: equivariant up to its error
TOLERANCE = {"equiformer_v2_dens": 2e-4, "escn_dens": 5e-3, "esen_dens": 2e-4}


def setting(config, batch):
    model = build_model(config).train()
    torch.nn.init.normal_(model.force_embedding.weight)
    data = corrupted(batch)
    assert 0 < data.noise_mask.sum() < len(data.noise_mask)
    return model, data


def predict(model, data):
    torch.manual_seed(1)
    with torch.no_grad():
        return model(data.clone())


def assert_close(actual, expected, tolerance, what):
    scale = expected.abs().max()
    assert scale > 0
    assert (actual - expected).abs().max() < tolerance * scale, what


@ALL
def test_rotation(config, batch):
    model, data = setting(config, batch)
    before = predict(model, data)
    rotation = o3.angles_to_matrix(*torch.tensor([0.3, 1.1, -0.7]))
    turned = data.clone()
    for name in ("pos", "forces", "noise_vec"):
        turned[name] = data[name] @ rotation.T
    turned.cell = data.cell @ rotation.T
    after = predict(model, turned)
    tolerance = TOLERANCE[config["name"]]
    assert_close(after["energy"], before["energy"], tolerance, "energy")
    for name in ("forces", "noise"):
        assert_close(after[name], before[name] @ rotation.T, tolerance, name)


@ALL
def test_translation(config, batch):
    model, data = setting(config, batch)
    before = predict(model, data)
    moved = data.clone()
    moved.pos = data.pos + torch.tensor([1.3, -0.4, 0.8])
    after = predict(model, moved)
    for name in before:
        assert_close(after[name], before[name], TOLERANCE[config["name"]], name)


@ALL
def test_permutation_of_atoms(config, batch):
    model, data = setting(config, batch)
    before = predict(model, data)
    generator = torch.Generator().manual_seed(0)
    order = torch.cat(
        [
            start + torch.randperm(int(count), generator=generator)
            for start, count in zip(data.ptr[:-1], data.natoms, strict=True)
        ]
    )
    shuffled = data.clone()
    for name in (
        "pos",
        "forces",
        "noise_vec",
        "noise_mask",
        "sigmas",
        "atomic_numbers",
        "fixed",
        "tags",
    ):
        shuffled[name] = data[name][order]
    after = predict(model, shuffled)
    tolerance = TOLERANCE[config["name"]]
    assert_close(after["energy"], before["energy"], tolerance, "energy")
    for name in ("forces", "noise"):
        assert_close(after[name], before[name][order], tolerance, name)


@ALL
def test_batching(config, batch):
    model, data = setting(config, batch)
    together = predict(model, data)
    fields = ("noise_vec", "noise_mask", "sigmas", "pos")
    singles = []
    for index, single in enumerate(batch.to_data_list()):
        atoms = data.batch == index
        for name in fields:
            single[name] = data[name][atoms]
        one = Batch.from_data_list([single])
        one.denoising_pos_forward = True
        singles.append(predict(model, one))
    for name in together:
        apart = torch.cat([outputs[name] for outputs in singles])
        assert_close(apart, together[name], TOLERANCE[config["name"]], name)
