"""Several ranks on one machine, each with data workers of its own: the same training."""

import lmdb
import pytest
import torch

from tests.runs import run, small_config, write_config, write_data


def trained(data, folder, form, *arguments):
    """Content of the checkpoint after an epoch of two ranks, and what was said."""
    folder.mkdir()
    config = small_config(data, batch_size=2, max_epochs=1)
    config["dataset"]["train"]["format"] = form
    path = write_config(folder / "config.yml", config)
    done = run("train", path, "--num-gpus", "2", "--seed", "1", *arguments, cwd=folder)
    (checkpoint,) = folder.glob("checkpoints/*/checkpoint.pt")
    return torch.load(checkpoint, weights_only=True), done.stdout + done.stderr


@pytest.fixture(scope="module")
def without(data, tmp_path_factory):
    return trained(data, tmp_path_factory.mktemp("without") / "run", "dens_lmdb")[0]


@pytest.mark.parametrize(("form", "start"), [("dens_lmdb", "fork"), ("lmdb", "spawn")])
def test_two_ranks_with_two_workers(data, without, form, start, tmp_path):
    content, said = trained(
        data, tmp_path / "run", form,
        "--optim.num_workers=2", f"--optim.worker_start_method={start}",
    )  # fmt: skip
    assert content["config"]["optim"]["num_workers"] == 2
    assert "num_workers to 0" not in said
    assert content["step"] == without["step"] == 3
    for name, weight in without["state_dict"].items():
        assert torch.equal(weight, content["state_dict"][name]), name
    for ours, theirs in zip(without["ema"]["shadow_params"], content["ema"]["shadow_params"],
                            strict=True):  # fmt: skip
        assert torch.equal(ours, theirs)


def test_unknown_start_method(data, tmp_path):
    config = write_config(tmp_path / "c.yml", small_config(data, worker_start_method="spwan"))
    done = run("train", config, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "optim.worker_start_method: 'spwan'" in done.stderr
    assert "did you mean 'spawn'" in done.stderr


def test_unreadable_record_ends_the_run_with_its_name(tmp_path):
    folder = write_data(tmp_path / "data")
    path = folder / "train" / "data.0000.lmdb"
    with lmdb.open(str(path), subdir=False) as env, env.begin(write=True) as transaction:
        transaction.put(b"7", transaction.get(b"7")[:300])
    config = write_config(tmp_path / "c.yml", small_config(folder, batch_size=2, num_workers=2))
    done = run("train", config, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: record 7 of {path} cannot be read")
