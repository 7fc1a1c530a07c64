"""fairchem as it is for somebody who has not installed dens_ocp: importing it fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.runs import environment, fairchem_alone

WITHOUT_DENS_OCP = """
import sys
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "dens_ocp":
            raise ImportError("dens_ocp is not installed")
sys.meta_path.insert(0, NotInstalled())
"""

# Both models draw random edge frames in every forward, which move results by rounding. The number
# of draws before differs (the DeNS model initialises more weights), hence a seed for each forward.
SEEDED = """
import torch
from fairchem.core.trainers import OCPTrainer
own_forward = OCPTrainer._forward
def seeded_forward(self, batch):
    torch.manual_seed(0)
    return own_forward(self, batch)
OCPTrainer._forward = seeded_forward
"""

SEEDED_OURS = """
import torch
from dens_ocp.training.fairchem_trainer import HostTrainer
own_outputs = HostTrainer._outputs
def seeded_outputs(self, batch):
    torch.manual_seed(0)
    return own_outputs(self, batch)
HostTrainer._outputs = seeded_outputs
"""

FAIRCHEM = """
import fairchem.core._cli
fairchem.core._cli.main()
"""

OURS = """
import sys
from dens_ocp.tools.cli import fairchem_main
assert fairchem_main(sys.argv[1:]) == 0
"""

STILL_WITHOUT = """
assert "dens_ocp" not in sys.modules
print("without dens_ocp")
"""


def python(script: str, *arguments: str | Path, cwd: Path, alone: bool = False) -> str:
    """Run ``script``, without this package's stand-ins if ``alone``; returns what it printed."""
    variables = fairchem_alone() if alone else environment()
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], cwd=cwd, env=variables,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-4000:]}"
    return done.stdout


def without_dens_ocp(script: str, *arguments: str | Path, cwd: Path) -> str:
    """Run ``script`` where importing dens_ocp raises, and nothing has imported it."""
    output = python(WITHOUT_DENS_OCP + script + STILL_WITHOUT, *arguments, cwd=cwd, alone=True)
    assert "without dens_ocp" in output
    return output


def fairchem(mode: str, config: Path, checkpoint: Path, *overrides: str, cwd: Path) -> str:
    """Stock fairchem's command line, without dens_ocp."""
    arguments = _arguments(mode, config, checkpoint, *overrides, cwd=cwd)
    return without_dens_ocp(SEEDED + FAIRCHEM, *arguments, cwd=cwd)


def ours(mode: str, config: Path, checkpoint: Path, *overrides: str, cwd: Path) -> str:
    """Our command line, seeded alike."""
    return python(
        SEEDED_OURS + OURS, *_arguments(mode, config, checkpoint, *overrides, cwd=cwd), cwd=cwd
    )


def _arguments(mode, config, checkpoint, *overrides, cwd):
    return [
        "--mode", mode, "--config-yml", config, "--checkpoint", checkpoint, "--cpu",
        "--run-dir", cwd, "--logger=tensorboard", "--optim.num_workers=0", *overrides,
    ]  # fmt: skip
