"""Programs on PATH: which ``fairchem`` runs, and SLURM's client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from dens_ocp.tools.doctor.finding import OK, WARNING, Finding

_RESTORE = f"{sys.executable} -m pip install --force-reinstall --no-deps -e . (project's folder)"


def check_scripts() -> Iterator[Finding]:
    """Whether the word ``fairchem`` starts the script that knows this plugin."""
    here = Path(sys.executable).parent
    for name in ("fairchem", "dens-ocp"):
        found = shutil.which(name)
        if found is None:
            yield Finding(
                WARNING,
                f"command {name}",
                "is not on PATH",
                f'export PATH="{here}:$PATH"' if (here / name).exists() else _RESTORE,
            )
        elif not _is_ours(Path(found)):
            yield Finding(
                WARNING,
                f"command {name}",
                f"{found} is not dens-ocp's: it dies on the word main and knows no trainer: dens; "
                "dens-ocp main and dotted names work",
                f'export PATH="{here}:$PATH"' if _is_ours(here / name) else _RESTORE,
            )
        elif Path(found).resolve().parent != here.resolve():
            yield Finding(
                WARNING,
                f"command {name}",
                f"{found} belongs to another environment than this Python ({sys.executable})",
                f'export PATH="{here}:$PATH"',
            )
        else:
            yield Finding(OK, f"command {name}", f"{found} (dens-ocp's)")


def _is_ours(script: Path) -> bool:
    try:
        return "dens_ocp" in script.read_text(errors="replace")
    except OSError:
        return False


def check_slurm(wanted: bool) -> Iterator[Finding]:
    """SLURM's client.

    Args:
        wanted: the config has a section ``slurm``.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        inside = "SLURM_JOB_ID" in os.environ
        yield Finding(
            WARNING if wanted or inside else OK,
            "SLURM",
            "no sbatch on PATH: --submit does not work here, everything else does",
            "run dens-ocp doctor on a login node, or: module load slurm" if wanted else "",
        )
        return
    try:
        done = subprocess.run(
            [sbatch, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
        text = (done.stdout or done.stderr).strip().splitlines()[:1] or [f"exit {done.returncode}"]
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(WARNING, "SLURM", f"{sbatch} does not answer: {error}", "sbatch --version")
        return
    status = OK if done.returncode == 0 else WARNING
    yield Finding(status, "SLURM", f"{text[0]} ({sbatch})", "" if status == OK else "sinfo")
