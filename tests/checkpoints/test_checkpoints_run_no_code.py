"""A checkpoint of unknown origin: what is in it is read, and nothing of it is run."""

import io
import os
import pickle
import tarfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from dens_ocp.checkpoints import checkpoint_files
from dens_ocp.errors import DensError
from dens_ocp.tools import cli
from tests.runs import make_trainer, run, small_config, write_config
from tests.unsafe_pickles import LeavesAMark

WEIGHTS = {"weight": torch.arange(3.0)}


@pytest.fixture
def mark(tmp_path) -> Path:
    return tmp_path / "mark"


@pytest.fixture
def malicious(tmp_path, mark) -> Path:
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": WEIGHTS, "config": LeavesAMark(mark)}, path)
    return path


def test_the_mark_is_left_by_the_book(malicious, mark):
    torch.load(malicious, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("command", ["train", "validate", "evaluate", "export", "report"])
def test_no_command_runs_it(command, malicious, mark, data, tmp_path, capsys):
    config = write_config(tmp_path / "config.yml", small_config(data))
    if command in ("train", "validate"):
        done = run(command, config, "--checkpoint", malicious, cwd=tmp_path, check=False)
        code, error = done.returncode, done.stderr.splitlines()[-1]
    else:
        evaluation = {"evaluation": {"s2ef": {"val_id": str(data / "val")}}}
        (tmp_path / "evaluate.yml").write_text(yaml.safe_dump(evaluation))
        code = cli.main({
            "evaluate": ["evaluate", str(malicious), "--config-yml", str(tmp_path / "evaluate.yml"),
                         "--out", str(tmp_path / "out"), "--cpu"],
            "export": ["export", str(malicious), str(tmp_path / "exported.pt")],
            "report": ["report", str(tmp_path), "--out", str(tmp_path / "report")],
        }[command])  # fmt: skip
        error = capsys.readouterr().err.splitlines()[-1]
    assert code == 2, error
    for words in (str(malicious), "builtins.exec", "any code", checkpoint_files.TRUSTED):
        assert words in error
    assert not mark.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_both_formats_of_torch(legacy, mark, tmp_path):
    path = tmp_path / "checkpoint.pt"
    content = {"state_dict": WEIGHTS, "ema": LeavesAMark(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(DensError, match="needs builtins.exec"):
        checkpoint_files.read(path, "cpu")
    assert not mark.exists()


def test_trust_is_for_the_named_file_only(malicious, mark, tmp_path, monkeypatch):
    monkeypatch.setenv(checkpoint_files.TRUSTED, str(tmp_path / "another.pt"))
    with pytest.raises(DensError, match=r"builtins\.exec"):
        checkpoint_files.read(malicious, "cpu")
    assert not mark.exists()
    both = os.pathsep.join([str(tmp_path / "another.pt"), os.path.relpath(malicious)])
    monkeypatch.setenv(checkpoint_files.TRUSTED, both)
    assert torch.equal(checkpoint_files.read(malicious, "cpu")["state_dict"]["weight"],
                       WEIGHTS["weight"])  # fmt: skip
    assert mark.exists()


class Module(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1


def test_torchscript_is_not_handed_to_its_interpreter(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.jit.script(Module()).save(str(path))
    if torch.__version__.startswith("2.4."):  # later ones refuse by themselves
        assert isinstance(torch.load(path, weights_only=True), torch.jit.ScriptModule)
    with pytest.raises(DensError, match="needs TorchScript"):
        checkpoint_files.read(path, "cpu")


def test_tar_files_are_not_unpacked(mark, tmp_path):
    path = tmp_path / "checkpoint.pt"
    with tarfile.open(path, "w") as file:
        content = pickle.dumps(LeavesAMark(mark))
        info = tarfile.TarInfo("storages")
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    with pytest.raises(DensError, match="tar format"):
        checkpoint_files.read(path, "cpu")
    assert not mark.exists()


@pytest.mark.parametrize("mmap", [False, True])
def test_plain_values_are_admitted(mmap, tmp_path):
    path = tmp_path / "checkpoint.pt"
    plain = {
        "step": np.int64(7), "best": np.float32(0.5), "array": np.arange(4.0), "set": {1, 2},
        "path": Path("a/b"), "config": OrderedDict(a=[1, (2.0, None, "x")]), "complex": 1j,
    }  # fmt: skip
    torch.save({"state_dict": WEIGHTS, **plain}, path)
    before = set(torch.serialization.get_safe_globals())
    content = checkpoint_files.read_content(path, "cpu", mmap=mmap)
    assert set(torch.serialization.get_safe_globals()) == before
    assert (content.pop("array") == plain.pop("array")).all()
    assert torch.equal(content.pop("state_dict")["weight"], WEIGHTS["weight"])
    assert content == plain


def test_old_files_that_cannot_be_mapped(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"state_dict": WEIGHTS}, path, _use_new_zipfile_serialization=False)
    content = checkpoint_files.read_content(path, "cpu", mmap=True)
    assert torch.equal(content["state_dict"]["weight"], WEIGHTS["weight"])


def test_our_own_checkpoints_hold_nothing_else(data, tmp_path):
    """What training writes is read with torch's own list, by anybody."""
    trainer = make_trainer(small_config(data), tmp_path, is_debug=False)
    metrics = trainer.validate("val", disable_tqdm=True)
    for training_state in (True, False):
        path = trainer.save(metrics, "checkpoint.pt", training_state)
        assert torch.load(path, weights_only=True)["config"]["optim"]["dens"]["p"] == 0.5


def test_the_authors_checkpoint(shared):
    path = shared / "reference" / "official_style_checkpoint.pt"
    assert checkpoint_files.read(path, "cpu")["state_dict"]
