"""Ranks that end at once after a reduction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import environment

RANKS = """
import os, signal, sys
import dens_ocp
import torch
from fairchem.core.common import distutils

folder = sys.argv[1]
pid = os.fork()
signal.alarm(100)  # ends a rank that hangs
os.environ["RANK"], os.environ["LOCAL_RANK"] = ("0", "0") if pid else ("1", "1")
os.environ["MASTER_ADDR"] = "localhost"
for number in range(30):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/{number}", rank=int(os.environ["RANK"]), world_size=2
    )
    group = torch.distributed.new_group(backend="gloo")
    for _ in range(3):
        summed = torch.tensor(1)
        torch.distributed.all_reduce(summed, group=group, async_op=True).wait()
        assert int(summed) == 2
        del summed
    del group
    distutils.cleanup()
    assert not torch.distributed.is_initialized()
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("both ended")
"""

ENDS = """
import gc, os, signal, sys
import dens_ocp
import torch
from fairchem.core.common import distutils

folder, clean = sys.argv[1], sys.argv[2] == "clean"
gc.freeze()  # else each rank looks through all that was imported when it ends
for number in range(8):
    ranks = []
    for rank in range(2):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            signal.alarm(60)
            sys.setswitchinterval(100)  # gloo's threads get Python's lock only where it is let go
            torch.distributed.init_process_group(
                "gloo", init_method=f"file://{folder}/{number}", rank=rank, world_size=2
            )
            group = torch.distributed.new_group(backend="gloo")
            summed = torch.tensor(1)
            torch.distributed.all_reduce(summed, group=group, async_op=True).wait()
            del summed, group
            if clean:
                distutils.cleanup()
            sys.exit(0 if clean else 2)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
    assert codes == ([0, 0] if clean else [2, 2]), (number, codes)
print("all ended")
"""


@pytest.mark.parametrize("how", ["clean", "by an error"])
def test_ranks_end_with_their_code_right_after_a_reduction(tmp_path: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDS, str(tmp_path), how], env=environment(), timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("all ended\n"), done.stderr


def test_groups_are_destroyed_without_a_hang(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RANKS, str(tmp_path)], env=environment(), timeout=120,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("both ended\n"), done.stderr
