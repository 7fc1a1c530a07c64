"""The real command line: training in a process group, a kill, the resume, predictions.

On GPUs: NCCL, ``--amp`` with GradScaler, two ranks where there are two GPUs. On a CPU: gloo, no
AMP.
"""

from __future__ import annotations

import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks import batches
from benchmarks.cases import Case, run_config
from benchmarks.gpu import scenes
from benchmarks.gpu.findings import NOT_ON_A_CPU, Finding, holds, not_judged
from benchmarks.gpu.parts import Setting
from dens_ocp.checkpoints import metrics_file
from dens_ocp.models.fast.layer_graphs import NOT_RECORDED

STEPS = 30
BATCHES = 3  # of an epoch
SAVE_EVERY = 5
KILL_AFTER = 7  # steps; the newest checkpoint is older
RUN = "gpu-check"
DOTTED_TRAINER = "dens_ocp.trainer.DeNSTrainer"
ROOT = Path(__file__).resolve().parents[2]


def config(some: Case, data: Path) -> dict[str, Any]:
    """A config of :data:`STEPS` steps.

    Args:
        some: its structures are a batch of a rank. data: folder of the LMDB, of
            :data:`BATCHES` such batches for each rank.
    """
    dens = {"dens": {"p": 0.5, "r": 0.5, "sigma": 0.1, "coefficient": 10}}
    found = run_config(data, some.structures, dens)
    optim = found.pop("optimizer")
    optim |= {"max_epochs": STEPS // BATCHES, "checkpoint_every": SAVE_EVERY}
    found["dataset"]["test"] = {"src": str(data)}
    name = {"eqv2": "equiformer_v2_dens", "escn": "escn_dens"}[some.family]
    model = {"name": name, "fast": True, **some.model()}
    if some.family == "eqv2":
        model["cuda_graphs"] = True
    return {**found, "optim": optim, "model": model, "trainer": DOTTED_TRAINER}


def environment() -> dict[str, str]:
    """Of a run: the project importable, NCCL says what it does, no account of wandb."""
    path = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "PYTHONWARNINGS": "ignore",
        "NCCL_DEBUG": "INFO",
        "TORCH_CPP_LOG_LEVEL": "INFO",
        "WANDB_MODE": "disabled",
    }


def words(mode: str, config_file: Path, folder: Path, cuda: bool, ranks: int) -> list[str]:
    """The command line of a run in ``folder``."""
    found = [
        sys.executable, "-m", "dens_ocp.tools.cli", "main", "--mode", mode,
        "--config-yml", str(config_file), "--run-dir", str(folder), "--timestamp-id", RUN,
        "--print-every", "1", "--num-gpus", str(ranks), *(["--amp"] if cuda else ["--cpu"]),
    ]  # fmt: skip
    if mode == "predict":
        found += ["--checkpoint", str(folder / "checkpoints" / RUN / "checkpoint.pt")]
    return found


@contextmanager
def started(command: Sequence[str], folder: Path, log: Path) -> Iterator[subprocess.Popen]:
    """A run in a group of processes of its own, which ends with the context."""
    with log.open("w") as file:
        process = subprocess.Popen(
            list(command), cwd=folder, env=environment(), stdin=subprocess.DEVNULL,
            stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen) -> None:
    """``kill -9`` to the process and all of its ranks, if it has not ended."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def steps_in(folder: Path) -> list[dict[str, Any]]:
    """Lines of training in ``metrics.jsonl``, each step once."""
    return metrics_file.read(folder / "checkpoints" / RUN, "train")


def run(setting: Setting) -> Iterator[Finding]:
    """Train until the kill, resume, predict; each a row or more. Logs stay, all else goes."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _run(Path(folder), setting)


def _run(folder: Path, setting: Setting) -> Iterator[Finding]:
    ranks = max(1, min(2, torch.cuda.device_count())) if setting.cuda else 1
    some = scenes.case("eqv2", "3", 4, setting.quick)
    records = batches.records(some.batch, some.structures * BATCHES * ranks, some.slab)
    data = batches.write(folder / "data", records)
    config_file = folder / "config.yml"
    config_file.write_text(yaml.safe_dump(config(some, data)))
    train = words("train", config_file, folder, setting.cuda, ranks)

    yield from _killed(train, folder, setting)
    yield from _resumed(train, folder, setting)
    if setting.cuda:
        yield from _gpu_rows(folder, _log(setting, "resumed"), ranks)
    else:
        yield not_judged("program", "NCCL", f"{NOT_ON_A_CPU}: the process group is gloo's")
        yield not_judged("program", "AMP and GradScaler", NOT_ON_A_CPU)
    predict = words("predict", config_file, folder, setting.cuda, 1)
    yield from _predicted(predict, folder, len(records), setting)


def _log(setting: Setting, name: str) -> Path:
    return setting.folder / f"program-{name}.log"


def _killed(command: Sequence[str], folder: Path, setting: Setting) -> Iterator[Finding]:
    log = _log(setting, "killed")
    with started(command, folder, log) as process:
        while process.poll() is None and setting.left() > 0:
            if len(steps_in(folder)) >= KILL_AFTER:
                break
            time.sleep(0.01)
        ended = process.poll()
        kill(process)
    reached = len(steps_in(folder))
    if ended is not None or reached < KILL_AFTER:
        raise RuntimeError(f"training ended with {ended} at step {reached}: {tail(log)}")
    saved = step_of(folder)
    detail = f"kill -9 after step {reached} of {STEPS}, newest checkpoint of step {saved}"
    yield holds("program, kill", "a checkpoint is left", 0 < saved <= reached, detail)


def _resumed(command: Sequence[str], folder: Path, setting: Setting) -> Iterator[Finding]:
    before = step_of(folder)
    log = _log(setting, "resumed")
    code = finished(command, folder, log, setting)
    lines = steps_in(folder)
    numbers = sorted(line["step"] for line in lines)
    said = re.search(r"resumes at step (\d+)", log.read_text())
    row = "program, resume"
    yield holds(row, "exit code 0", code == 0, f"{code}" + ("" if code == 0 else f" {tail(log)}"))
    at = int(said[1]) if said else None
    detail = f"at step {at}; the checkpoint is of step {before}"
    yield holds(row, "goes on where the checkpoint is", at == before, detail)
    missing = set(range(1, STEPS + 1)) - set(numbers)
    overflows = halvings(checkpoint(folder)) if setting.cuda else 0
    detail = f"{len(numbers)}, the last one {max(numbers, default=0)}, {overflows} overflows"
    once = len(numbers) == len(set(numbers)) and max(numbers, default=0) == STEPS
    yield holds(row, "all steps were taken", once and len(missing) == overflows, detail)
    losses = [line["loss"] for line in lines]
    detail = f"first {losses[0]:.4g}, last {losses[-1]:.4g}" if losses else "none"
    yield holds(row, "losses are finite", all(map(math.isfinite, losses)), detail)
    times = [line["time"] for line in lines if line["step"] > STEPS // 2]
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    if gaps:
        what = "seconds of a step in the training loop, with a printed line"
        yield {"kind": "note", "what": what, "value": statistics.median(gaps)}


def _gpu_rows(folder: Path, log: Path, ranks: int) -> Iterator[Finding]:
    said = log.read_text()
    row = f"program, {ranks} rank{'s' if ranks > 1 else ''}"
    found = "NCCL INFO" in said or "ProcessGroupNCCL" in said
    yield holds(row, "NCCL", found, "named in the log" if found else "not named in the log")
    detail = next((line for line in said.splitlines() if NOT_RECORDED in line), "no complaint")
    yield holds(row, "layers are recorded", NOT_RECORDED not in said, detail[:200])
    amp = checkpoint(folder).get("amp") or {}
    scale = float(amp.get("scale", math.nan))
    yield holds(row, "AMP and GradScaler", 64 <= scale < math.inf, f"scale {scale:g}")


def _predicted(
    command: Sequence[str], folder: Path, structures: int, setting: Setting
) -> Iterator[Finding]:
    log = _log(setting, "predict")
    code = finished(command, folder, log, setting)
    row = "program, predict"
    yield holds(row, "exit code 0", code == 0, f"{code}" + ("" if code == 0 else f" {tail(log)}"))
    files = sorted((folder / "results").rglob("*predictions.npz"))
    if not files:
        yield holds(row, "predictions", False, "no file was written")
        return
    with np.load(files[-1], allow_pickle=False) as written:
        energy, forces = written["energy"], written["forces"]
    finite = bool(np.isfinite(energy).all() and np.isfinite(forces).all())
    detail = f"{len(energy)} of {structures} structures, {len(forces)} forces"
    yield holds(row, "predictions are finite", finite and len(energy) == structures, detail)


def finished(command: Sequence[str], folder: Path, log: Path, setting: Setting) -> int | None:
    """Run it to its end; the exit code, or None if the time is over."""
    with started(command, folder, log) as process:
        try:
            return process.wait(max(0.0, setting.left()))
        except subprocess.TimeoutExpired:
            return None


def checkpoint(folder: Path) -> dict[str, Any]:
    """The newest one, written by the run above."""
    path = folder / "checkpoints" / RUN / "checkpoint.pt"
    return torch.load(path, map_location="cpu", weights_only=False)


def step_of(folder: Path) -> int:
    """Of the newest checkpoint; 0: there is none."""
    try:
        return int(checkpoint(folder)["step"])
    except FileNotFoundError:
        return 0


def halvings(saved: dict[str, Any]) -> int:
    """Steps in which GradScaler found an overflow, which have no line of metrics: each halves its
    scale, which begins at 65536 and grows after 2000 steps.

    >>> halvings({"amp": {"scale": 16384.0}})
    2
    """
    scale = float((saved.get("amp") or {}).get("scale", 65536.0))
    return round(math.log2(65536.0 / scale))


def tail(log: Path, characters: int = 300) -> str:
    return log.read_text()[-characters:].strip()
