"""The machine: GPUs, whether processes reach each other, programs on PATH; and where a run writes:
logger, folder, space."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from dens_ocp.errors import DensError
from dens_ocp.launch import new_interpreter
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding
from dens_ocp.tools.doctor.packages import EXTENSIONS

_GIB = 2**30
_RESTORE = f"{sys.executable} -m pip install --force-reinstall --no-deps -e . (project's folder)"

# a program, not a module: a module of this package would import torch-scatter and fairchem too
_ALL_REDUCE = """
import datetime, sys, tempfile, torch
import torch.distributed as dist
from torch.multiprocessing import start_processes
backend, world = sys.argv[1], int(sys.argv[2])
def one(rank, file):
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(backend, init_method="file://" + file, rank=rank, world_size=world,
                            timeout=datetime.timedelta(seconds=60))
    value = torch.full((1024,), rank + 1.0, device=device)
    dist.all_reduce(value)
    dist.barrier()
    assert bool((value == world * (world + 1) / 2).all()), "wrong sum: " + str(value[0].item())
    dist.destroy_process_group()
with tempfile.TemporaryDirectory() as folder:
    start_processes(one, (folder + "/rendezvous",), world, start_method="fork")
"""


def check_gpus() -> Iterator[Finding]:
    """What torch can compute on; torch has been seen to be importable."""
    import torch
    from torch.utils import collect_env

    built, cpus = torch.version.cuda, f"torch {torch.__version__} (built for CPUs)"
    if torch.cuda.is_available():
        known = torch.cuda.get_arch_list()
        driver = collect_env.get_nvidia_driver_version(collect_env.run)
        for index in range(torch.cuda.device_count()):
            each = torch.cuda.get_device_properties(index)
            status, fix, text = OK, "", (
                f"{each.name}, {each.total_memory / _GIB:.0f} GiB, compute capability "
                f"{each.major}.{each.minor}, CUDA {built} of torch, driver {driver}"
            )  # fmt: skip
            if not any(arch[:4] == f"sm_{each.major}" for arch in known):
                status, text = PROBLEM, f"{text}: torch is built for {', '.join(known)} only"
                fix = ("install a torch that is built for this GPU: make distclean; make setup "
                       "TORCH=2.13.0 (docs/installation.md)")  # fmt: skip
            yield Finding(status, f"GPU {index}", text, fix)
        return
    if not shutil.which("nvidia-smi") or not (seen := collect_env.get_gpu_info(collect_env.run)):
        have = f"torch {torch.__version__} (built for CUDA {built})" if built else cpus
        yield Finding(WARNING, "GPU", f"no GPU; {have} runs with --cpu")
        return
    text = f"{cpus} cannot use it"
    fix = "make distclean && make setup (docs/installation.md)"
    if built:
        text = (f"torch with CUDA {built} cannot use it: CUDA_VISIBLE_DEVICES hides it, or the "
                "driver is too old")  # fmt: skip
        fix = ("env | grep CUDA_VISIBLE_DEVICES; nvidia-smi (its CUDA version has to be "
               f"{built} or newer)")  # fmt: skip
    yield Finding(PROBLEM, "GPU", f"the driver sees {seen}, but {text}", fix)


def check_extensions() -> Iterator[Finding]:
    """CUDA builds of torch-scatter and torch-sparse, where they are installed and there is CUDA."""
    import torch

    for name in EXTENSIONS:
        importlib.import_module(name)  # its operators
        version = int(getattr(torch.ops, name).cuda_version())
        yield judged_extension(name.replace("_", "-"), version, torch.cuda.is_available())


def judged_extension(name: str, cuda_version: int, has_gpu: bool) -> Finding:
    """Finding on one extension; ``cuda_version`` is -1 for a CPU build, else 12010 for 12.1."""
    if cuda_version < 0 and has_gpu:
        text = "built without CUDA, but this machine has a GPU: training on the GPU fails"
        fix = ("python -m pip install --force-reinstall --no-deps --only-binary :all: "
               "-f $PYG_WHEELS torch-scatter torch-sparse (docs/installation.md)")  # fmt: skip
        return Finding(PROBLEM, name, text, fix)
    cuda = f"CUDA {cuda_version // 1000}.{cuda_version % 1000 // 10}"
    built = f"built for {'CPUs' if cuda_version < 0 else cuda}"
    return Finding(OK, name, built + ("" if has_gpu else " (no GPU here)"))


def all_reduce(backend: str, world: int, timeout: float = 120.0) -> str:
    """Sum a vector over ``world`` processes of this machine.

    Returns:
        "" if each of them has the right sum, else why not.
    """
    command = new_interpreter.of_program(_ALL_REDUCE, backend, str(world))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=timeout, env=environment, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout:.0f} s"
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return last[0] if done.returncode else ""


def check_collectives() -> Iterator[Finding]:
    """gloo with 2 processes; NCCL with one for each GPU, where there are two or more."""
    import torch

    text, error = "all-reduce over 2 processes", all_reduce("gloo", 2)
    if error:
        yield Finding(PROBLEM, "gloo", f"{text}: {error}", "export GLOO_SOCKET_IFNAME=lo")
    else:
        yield Finding(OK, "gloo", f"{text} of this machine")
    gpus = torch.cuda.device_count()
    if not torch.distributed.is_nccl_available():
        fix = "install torch with CUDA (docs/installation.md)" if gpus > 1 else ""
        yield Finding(PROBLEM if fix else OK, "NCCL", "not part of this torch", fix)
        return
    version = ".".join(map(str, torch.cuda.nccl.version()))
    if gpus < 2:
        yield Finding(
            OK, "NCCL", (f"{version}; not tested, because this needs 2 GPUs (here: {gpus})")
        )
        return
    text, error = f"{version}: all-reduce over {gpus} GPUs", all_reduce("nccl", gpus)
    if error:
        fix = "NCCL_DEBUG=INFO dens-ocp doctor; if peer access fails, set NCCL_P2P_DISABLE=1"
        yield Finding(PROBLEM, "NCCL", f"{text}: {error}", fix)
    else:
        yield Finding(OK, "NCCL", text)


def check_scripts() -> Iterator[Finding]:
    """Whether the word ``fairchem`` starts the script that knows this plugin."""
    here = Path(sys.executable).parent
    export = f'export PATH="{here}:$PATH"'
    for name in ("fairchem", "dens-ocp"):
        found, status, fix = shutil.which(name), WARNING, export
        if found is None:
            text, fix = "is not on PATH", export if (here / name).exists() else _RESTORE
        elif not _is_ours(Path(found)):
            text = (f"{found} is not dens-ocp's script: it fails on the word main and knows no "
                "trainer: dens; dens-ocp main and dotted names work")  # fmt: skip
            fix = export if _is_ours(here / name) else _RESTORE
        elif Path(found).resolve().parent != here.resolve():
            text = f"{found} belongs to another environment than this Python ({sys.executable})"
        else:
            status, text, fix = OK, f"{found} (of dens-ocp)", ""
        yield Finding(status, f"command {name}", text, fix)


def _is_ours(script: Path) -> bool:
    return script.is_file() and "dens_ocp" in script.read_text(errors="replace")


def check_slurm(wanted: bool) -> Iterator[Finding]:
    """SLURM's client.

    Args:
        wanted: the config has a section ``slurm``.
    """
    sbatch = shutil.which("sbatch")
    if sbatch is None:
        status = WARNING if wanted or "SLURM_JOB_ID" in os.environ else OK
        text = "there is no sbatch on PATH, so --submit does not work here; everything else does"
        fix = "run dens-ocp doctor on a login node, or: module load slurm" if wanted else ""
        yield Finding(status, "SLURM", text, fix)
        return
    try:
        done = subprocess.run(
            [sbatch, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(WARNING, "SLURM", f"{sbatch} does not answer: {error}", "sbatch --version")
        return
    said = (done.stdout or done.stderr).strip().partition("\n")[0] or f"exit {done.returncode}"
    status, fix = (WARNING, "sinfo") if done.returncode else (OK, "")
    yield Finding(status, "SLURM", f"{said} ({sbatch})", fix)


def check_logger(logger: object, from_config: bool) -> Iterator[Finding]:
    """Whether the logger can start.

    Args:
        logger: the config's ``logger``; ``wandb`` is what fairchem takes without one.
        from_config: whether a config said so; without one a missing key is a warning.
    """
    from dens_ocp.launch import wandb_login

    try:
        wandb_login.check(logger)
    except DensError as error:
        status, text = PROBLEM if from_config else WARNING, str(error).partition(". ")[0]
        fix = "wandb login; or export WANDB_MODE=offline; or --logger=tensorboard"
        yield Finding(status, "logger", text, fix)
        return
    text = str(logger.get("name") if isinstance(logger, dict) else logger)
    if text.startswith("wandb"):
        mode = os.environ.get("WANDB_MODE")
        text += f", WANDB_MODE={mode}" if mode else ", with a key, or a terminal to ask for one"
    yield Finding(OK, "logger", text)


def checkpoint_bytes(parameters: int) -> int:
    """Size of ``checkpoint.pt``: weights, two moments of Adam, EMA, all float32.

    >>> checkpoint_bytes(1_000_000)
    16000000
    """
    return 4 * parameters * 4


def check_run_folder(folder: Path, parameters: int | None = None) -> Iterator[Finding]:
    """Write access and free space.

    Args:
        folder: ``--run-dir``; created by a run, so its first folder that exists is looked at.
        parameters: of the model, to say what two checkpoints and a temporary one take.
    """
    above = (folder.absolute(), *folder.absolute().parents)
    existing = next(each for each in above if each.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".dens-ocp-doctor-") as file:
            file.write(b"x" * 4096)
    except OSError as error:
        text = f"{existing} cannot be written to: {error.strerror}"
        yield Finding(
            PROBLEM, "run-dir", text, ("give --run-dir FOLDER with a folder that you can write to")
        )
        return
    free, needed = shutil.disk_usage(existing).free, _GIB
    text = f"{existing} is writable, {free / _GIB:.1f} GiB free"
    if parameters:
        needed = 3 * checkpoint_bytes(parameters)
        text += f"; a checkpoint takes {needed / 3 / _GIB:.2f} GiB"
    if free < needed:
        text += f"; a run needs {needed / _GIB:.1f} GiB for checkpoints"
        fix = f"free space on that file system (df -h {existing}), or give another --run-dir FOLDER"
        yield Finding(PROBLEM, "run-dir", text, fix)
    elif free < 5 * needed:
        yield Finding(WARNING, "run-dir", f"{text}; this is little", f"df -h {existing}")
    else:
        yield Finding(OK, "run-dir", text)
