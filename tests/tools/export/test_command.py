"""``dens-ocp export``: what is written, and what is refused."""

import copy

import numpy as np
import pytest
import torch
import yaml

from dens_ocp.models.parameter_names import is_dens
from dens_ocp.tools import cli
from dens_ocp.tools.export import stock_model
from tests.conftest import SMALL_EQUIFORMER
from tests.runs import small_config, write_config
from tests.tools.export.conftest import MODELS

STOCK_NAMES = {"equiformer_v2": "equiformer_v2", "escn": "escn", "esen": "hydra"}


def export(*arguments):
    return cli.main(["export", *map(str, arguments)])


def load(path):
    return torch.load(path, weights_only=False)


def refused(capsys, *arguments, words):
    assert export(*arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and len(error.splitlines()) == 1
    for word in words:
        assert str(word) in error


def edited(path, out, change):
    content = load(path)
    change(content)
    torch.save(content, out)
    return out


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written(originals, tmp_path, capsys, name):
    original = originals[name]
    out = tmp_path / "new folder" / "exported.pt"
    assert export(original.checkpoint, out) == 0
    shown = capsys.readouterr().out
    for words in (
        "averaged (EMA)",
        f"model        {STOCK_NAMES[name]}",
        "energy and forces",
        "element ref",
    ):
        assert words in shown
    assert sorted(path.name for path in out.parent.iterdir()) == ["exported.pt", "exported.yml"]

    before, after = load(original.checkpoint), load(out)
    assert after["normalizers"] == before["normalizers"]
    references = before["elementrefs"]["energy"]["element_references"]
    assert torch.equal(after["elementrefs"]["energy"]["element_references"], references)
    assert references.abs().max() == 1
    for left_out in ("optimizer", "scheduler", "ema", "epoch", "step"):
        assert left_out not in after
    assert after["exported"]["weights"] == "averaged (EMA)"

    config, written = after["config"], yaml.safe_load(out.with_suffix(".yml").read_text())
    assert written["model"] == config["model"] and config["model"]["name"] == STOCK_NAMES[name]
    assert config["trainer"] == written["trainer"] == "equiformerv2_forces"
    assert "dens" not in written["optim"] and written["optim"]["lr_initial"] == 0.001
    assert "dens" not in yaml.safe_dump(config)
    assert str(original.folder.parent) not in yaml.safe_dump(config), "a path of this machine"


@pytest.mark.parametrize("name", MODELS)
def test_weights(originals, tmp_path, name):
    """EMA of checkpoint.pt, the last step's with --raw; best_checkpoint.pt as it is stored."""
    original = originals[name]
    content = load(original.checkpoint)
    states = {}
    for kind, path, options in (
        ("averaged", original.checkpoint, []),
        ("raw", original.checkpoint, ["--raw"]),
        ("best", original.best, []),
    ):
        out = tmp_path / f"{kind}.pt"
        assert export(path, out, *options) == 0
        states[kind] = load(out)["state_dict"]
    for key, value in states["averaged"].items():
        assert torch.equal(value, states["best"][key]), key
    raw = content["state_dict"]
    bias = raw["force_embedding.bias"]
    (atoms,) = [key for key in states["raw"] if key.endswith("sphere_embedding.weight")]
    assert torch.equal(states["raw"][atoms], raw["sphere_embedding.weight"] + bias)
    assert not torch.equal(states["raw"][atoms], states["averaged"][atoms])


def test_official_checkpoint(shared, tmp_path):
    """The authors' names (module.module.), config (model_attributes) and normalizers (std)."""
    path = shared / "reference" / "official_style_checkpoint.pt"
    out = tmp_path / "exported.pt"
    assert export(path, out) == 0
    content = load(out)
    std = load(path)["normalizers"]["energy"]["std"]
    assert content["normalizers"]["energy"]["rmsd"] == std
    assert content["config"]["model"]["name"] == "equiformer_v2"

    # the same with the model in a config file, and references that the checkpoint does not have
    bare = edited(path, tmp_path / "bare.pt", lambda each: each.pop("config"))
    np.savez(tmp_path / "coeff.npz", coeff=np.arange(90.0))
    attributes = load(path)["config"]["model_attributes"]
    config = small_config(tmp_path, model={"name": "equiformer_v2_dens", **attributes})
    config["dataset"]["train"] |= {"format": "oc22_lmdb", "lin_ref": str(tmp_path / "coeff.npz")}
    yml = write_config(tmp_path / "config.yml", config)
    assert export(bare, tmp_path / "second.pt", "--config-yml", yml) == 0
    second = load(tmp_path / "second.pt")
    for key, value in content["state_dict"].items():
        assert torch.equal(value, second["state_dict"][key])
    # the checkpoint's normalizers come before the file's, as in evaluation
    assert second["normalizers"] == content["normalizers"]
    assert second["elementrefs"]["energy"]["element_references"][78] == 78
    assert second["config"]["dataset"]["format"] == "oc22_lmdb"


def test_references_that_the_checkpoint_lacks_are_noted(originals, tmp_path, capsys):
    def change(content):
        content["elementrefs"] = {}
        content["config"]["dataset"]["lin_ref"] = "oc22_linfit_coeffs.npz"

    path = edited(originals["equiformer_v2"].checkpoint, tmp_path / "c.pt", change)
    assert export(path, tmp_path / "out.pt") == 0
    assert "note: " in (shown := capsys.readouterr().out) and "oc22_linfit_coeffs.npz" in shown


def test_refused_paths(originals, tmp_path, capsys):
    checkpoint = originals["escn"].checkpoint
    out = tmp_path / "out.pt"
    refused(capsys, tmp_path / "none.pt", out, words=["none.pt does not exist"])
    refused(capsys, checkpoint, checkpoint, "--force", words=["the checkpoint itself"])
    refused(capsys, checkpoint, tmp_path, words=["not the name of a checkpoint"])
    refused(capsys, checkpoint, out, "--config-yml", tmp_path / "no.yml", words=["no.yml does not"])
    for existing in (out, out.with_suffix(".yml")):
        existing.write_text("mine")
        refused(capsys, checkpoint, out, words=[existing, "--force"])
        assert existing.read_text() == "mine"
        existing.unlink()
    out.write_text("mine")
    assert export(checkpoint, out, "--force") == 0
    assert load(out)["config"]["model"]["name"] == "escn"


def test_refused_checkpoints(originals, tmp_path, capsys):
    original = originals["equiformer_v2"]
    out = tmp_path / "out.pt"
    assert export(original.best, tmp_path / "stock.pt") == 0
    capsys.readouterr()
    refused(capsys, tmp_path / "stock.pt", out, words=["not a DeNS checkpoint", "no export"])

    def model(**changes):
        def change(content):
            content["config"]["model"] = {**SMALL_EQUIFORMER, **changes}

        return edited(original.best, tmp_path / "model.pt", change)

    refused(capsys, model(name="equiformer_v2_den"), out, words=["did you mean", "v2_dens'"])
    refused(capsys, model(name="hydra"), out, words=["hydra is not a DeNS model"])
    refused(capsys, model(num_layers=3), out, words=["another architecture", "blocks.2"])
    sigma = model(use_noise_schedule_sigma_encoding=True)
    refused(capsys, sigma, out, words=["noise_schedule_sigma_embedding"])
    bare = edited(original.best, tmp_path / "bare.pt", lambda each: each.pop("config"))
    refused(capsys, bare, out, words=["no `model` section", "--config-yml"])
    half = tmp_path / "half.pt"
    half.write_bytes(original.best.read_bytes()[:20000])
    refused(capsys, half, out, words=["half.pt is damaged"])
    assert not out.exists() and not out.with_suffix(".yml").exists()


def test_a_checkpoint_without_noise_head_can_be_exported(originals, tmp_path):
    def change(content):
        for name in [name for name in content["state_dict"] if name.startswith("noise_head")]:
            del content["state_dict"][name]

    path = edited(originals["escn"].best, tmp_path / "c.pt", change)
    assert export(path, tmp_path / "out.pt") == 0


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_left_when_predictions_differ(originals, tmp_path, capsys, monkeypatch, name):
    """The command compares what it wrote: here the fold is left out."""

    def unfolded(state):
        return {name: value for name, value in state.items() if not is_dens(name)}

    monkeypatch.setattr(stock_model, "without_dens", unfolded)
    out = tmp_path / "out.pt"
    out.write_text("mine")
    refused(
        capsys, originals[name].checkpoint, out, "--force",
        words=["predictions of the exported model differ", "energy", "forces"],
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["out.pt"] and out.read_text() == "mine"


def test_sections_that_are_missing_get_defaults():
    from dens_ocp.tools.export.stock_model import checkpoint_config, stock_config

    optim = {"use_denoising_pos": True, "denoising_pos_coefficient": 10, "batch_size": 7}
    given = {"optim": optim, "dataset": [{"format": "dens_lmdb", "src": "x", "md_source": "auto"}]}
    before = copy.deepcopy(given)
    config = stock_config(given, {"name": "escn"})
    assert given == before
    assert set(optim) & set(config["optim"]) == {"batch_size"}
    assert config["optim"]["batch_size"] == 7
    assert config["dataset"]["train"]["format"] == "lmdb"
    assert set(config["dataset"]["train"]) == {"format", "key_mapping"}
    assert config["evaluation_metrics"]["primary_metric"] == "forces_mae"
    assert checkpoint_config(config)["dataset"]["src"] == ""
