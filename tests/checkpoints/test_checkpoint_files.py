"""Damaged files, full disks: a whole checkpoint stays, and is found."""

import os
import random
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from dens_ocp.checkpoints import kept_checkpoints
from dens_ocp.errors import DensError
from tests.training.states import checkpoint, difference


@pytest.fixture
def state() -> dict:
    generator = torch.Generator().manual_seed(0)
    return {
        "step": 7,
        "weights": [torch.randn(50, 40, generator=generator) for _ in range(5)],
    }


def flip(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_any_flipped_bit_is_noticed_or_changes_nothing(state, tmp_path):
    whole, damaged = tmp_path / "whole.pt", tmp_path / "damaged.pt"
    kept_checkpoints.write(state, whole)
    assert kept_checkpoints.damage(whole) is None
    draw, size, noticed = random.Random(0), whole.stat().st_size, 0
    for _ in range(1000):
        damaged.write_bytes(whole.read_bytes())
        flip(damaged, draw.randrange(size), draw.randrange(8))
        if kept_checkpoints.damage(damaged) is None:
            assert difference(state, torch.load(damaged, weights_only=True)) is None
        else:
            noticed += 1
    assert noticed > 900


def test_torch_takes_a_flipped_bit_for_another_number(state, tmp_path):
    """Why the checksums are compared here."""
    path = tmp_path / "checkpoint.pt"
    kept_checkpoints.write(state, path)
    where = path.read_bytes().find(state["weights"][2].numpy().tobytes())
    flip(path, where + 400, 3)
    assert difference(state, torch.load(path, weights_only=True)) is not None
    assert "checksum" in kept_checkpoints.damage(path)


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files(state, tmp_path, part):
    path = tmp_path / "checkpoint.pt"
    kept_checkpoints.write(state, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    assert kept_checkpoints.damage(path) is not None
    path.write_bytes(content[: int(len(content) * part)].ljust(len(content), b"\0"))
    assert kept_checkpoints.damage(path) is not None


def test_legacy_files_have_no_checksums(state, tmp_path):
    path = tmp_path / "old.pt"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    assert kept_checkpoints.damage(path) is None


def test_the_last_ones_are_kept_and_the_newest_whole_one_is_found(state, tmp_path):
    path = tmp_path / "checkpoint.pt"
    previous = None
    for step in (3, 6, 9, 9, 12):
        keep_as = tmp_path / f"checkpoint.{previous}.pt" if previous not in (None, step) else None
        kept_checkpoints.write({**state, "step": step}, path, keep_as)
        kept_checkpoints.prune(tmp_path, step, keep=3)
        previous = step
    assert [step for step, _ in kept_checkpoints.older(tmp_path)] == [9, 6]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "checkpoint.6.pt", "checkpoint.9.pt", "checkpoint.pt",
    ]  # fmt: skip
    assert kept_checkpoints.newest_whole(path) == path
    path.write_bytes(b"")
    assert kept_checkpoints.newest_whole(path).name == "checkpoint.9.pt"
    flip(tmp_path / "checkpoint.9.pt", 30000, 0)
    path.unlink()
    assert kept_checkpoints.newest_whole(path).name == "checkpoint.6.pt"
    # back at 6, the future of the earlier run goes
    kept_checkpoints.prune(tmp_path, 6, keep=3)
    assert kept_checkpoints.older(tmp_path) == []
    with pytest.raises(DensError, match="does not exist.*no older one"):
        kept_checkpoints.newest_whole(path)
    with pytest.raises(DensError, match="does not exist"):
        kept_checkpoints.newest_whole(tmp_path / "another.pt")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB, if this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here (root is needed); see the next test")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_the_file_before(state, small_disk):
    path = small_disk / "checkpoint.pt"
    kept_checkpoints.write(state, path)
    before = path.read_bytes()
    (small_disk / "other").write_bytes(b"1" * (900_000 - len(before)))
    big = {**state, "more": torch.zeros(10**5)}
    for number in range(3):
        with pytest.raises(OSError, match="No space left"):
            kept_checkpoints.write(big, path, small_disk / f"checkpoint.{number}.pt")
        assert path.read_bytes() == before
        assert sorted(os.listdir(small_disk)) == ["checkpoint.pt", "other"]
    (small_disk / "other").unlink()
    kept_checkpoints.write(big, path, small_disk / "checkpoint.7.pt")
    assert sorted(os.listdir(small_disk)) == ["checkpoint.7.pt", "checkpoint.pt"]


@pytest.mark.slow
def test_training_goes_on_when_the_disk_is_full(lives, config, tmp_path):
    """A limit on the size of files, which is a failing write like that of a full disk: no
    checkpoint fits. With the limit gone the run goes on."""
    path = config(max_epochs=2)
    whole = lives.train(path, "whole", tmp_path)
    assert whole.end() == 0
    size = (tmp_path / "checkpoints/whole/checkpoint.pt").stat().st_size
    life = lives.train(path, "full", tmp_path, file_size=size // 2)
    assert life.end() == 2
    assert "step 6 of" in life.log and "Traceback" not in life.log
    for step in (2, 4, 6, 8):
        assert f"checkpoint.pt of step {step} was not saved" in life.log
    assert "File too large" in life.log
    assert "error: checkpoint of step 8" in life.log
    folder = tmp_path / "checkpoints/full"
    assert not list(folder.glob("checkpoint*")) and not list(folder.glob(".*"))
    # checkpoints fit, and then no more
    life = lives.train(path, "full", tmp_path)
    life.wait_for("step 3 of")
    life.kill()
    life.end()
    step = checkpoint(tmp_path, "full")["step"]
    life = lives.train(path, "full", tmp_path, file_size=size // 2)
    assert life.end() == 2 and f"the checkpoint of step {step} is kept" in life.log
    assert checkpoint(tmp_path, "full")["step"] == step
    assert lives.train(path, "full", tmp_path).end() == 0
    found = difference(checkpoint(tmp_path, "whole"), checkpoint(tmp_path, "full"))
    assert found is None, found


@pytest.mark.slow
@pytest.mark.parametrize("how", ["truncated", "flipped", "empty", "removed"])
def test_a_damaged_newest_checkpoint(lives, config, tmp_path, how):
    path = config(max_epochs=1, eval_every=1000)
    whole = lives.train(path, "whole", tmp_path)
    assert whole.end() == 0
    newest = tmp_path / "checkpoints/whole/checkpoint.pt"
    wanted = checkpoint(tmp_path, "whole")
    content = newest.read_bytes()
    if how == "removed":
        newest.unlink()
    elif how == "flipped":
        with zipfile.ZipFile(newest) as file:  # between records are bytes that nobody reads
            record = file.read(max(file.infolist(), key=lambda each: each.file_size))
        flip(newest, content.index(record) + len(record) // 2, 0)
    else:
        newest.write_bytes(content[: len(content) // 2 if how == "truncated" else 0])
    life = lives.train(path, "whole", tmp_path)
    assert life.end() == 0, life.log[-3000:]
    assert "resuming from" in life.log and "checkpoint.2.pt" in life.log
    assert difference(wanted, checkpoint(tmp_path, "whole")) is None
