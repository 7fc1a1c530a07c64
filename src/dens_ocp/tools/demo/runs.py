"""The runs of the demo through the real commands: training, and ``dens-ocp evaluate``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from dens_ocp.checkpoints import checkpoint_files, metrics_file
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.pipeline.jobs import run_jobs
from dens_ocp.results.pipeline.options import load_settings
from dens_ocp.results.pipeline.process import cores, run_cli
from dens_ocp.settings.defaults import KEY_MAPPING
from dens_ocp.tools.evaluate import evaluated
from dens_ocp.training.training_log import summary
from dens_ocp.whole_files import write_text

PRINT_EVERY = 20
VALIDATIONS = 5  # during a training run


def recipe() -> dict[str, Any]:
    """``config.yml`` of this package."""
    return yaml.safe_load(resources.files(__package__).joinpath("config.yml").read_text())


def training_config(
    train: Path,
    val: Path,
    normalizers: dict[str, dict[str, float]],
    epochs: int,
    steps_per_epoch: int,
    dens: bool = True,
) -> dict[str, Any]:
    """The config of a training run.

    Args:
        train, val: S2EF LMDBs with ``y`` (eV) and ``force`` (eV/Angstrom).
        normalizers: mean and stdev of ``energy`` and ``forces``.
        epochs: number of epochs.
        steps_per_epoch: training steps of each; validations are spread evenly over the run.
        dens: False: the same training without DeNS.
    """
    config = recipe()
    config["dataset"] = {
        "train": {
            "format": "dens_lmdb",
            "src": str(train),
            "key_mapping": dict(KEY_MAPPING),
            "transforms": {"normalizer": normalizers},
        },
        "val": {"format": "lmdb", "src": str(val)},
    }
    config["optim"]["max_epochs"] = epochs
    config["optim"]["eval_every"] = math.ceil(epochs * steps_per_epoch / VALIDATIONS)
    config["optim"]["dens"]["enabled"] = dens
    return config


def evaluation_config(
    s2ef: dict[str, Path],
    is2re: dict[str, Path] | None = None,
    relaxation_steps: int | None = None,
    board: str | None = None,
) -> dict[str, Any]:
    """The config of ``dens-ocp evaluate`` for these splits."""
    sources = {"s2ef": s2ef, "is2re": is2re or {}}
    section: dict[str, Any] = {
        task: {split: str(source) for split, source in of_task.items()}
        for task, of_task in sources.items()
    } | ({"board": board} if board else {})
    steps = {"relaxation_steps": relaxation_steps} if relaxation_steps else {}
    return {"evaluation": section, "task": recipe()["task"] | steps}


@dataclass(frozen=True)
class Trained:
    """A finished training run; ``folder`` is that of its checkpoints and ``metrics.jsonl``."""

    name: str
    config: dict[str, Any]
    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "best_checkpoint.pt"

    def best_validation(self) -> dict[str, Any]:
        """The line of ``metrics.jsonl`` (eV, eV/Angstrom) on the model of :attr:`checkpoint`."""
        return min(metrics_file.read(self.folder, "val"), key=lambda line: line["forces_mae"])


def training_progress(
    label: str,
    folder: Path,
    total_steps: int,
    every: float = 5.0,
    write: Callable[[str], None] = print,
) -> Callable[[str], None]:
    """A function that says what is new in ``metrics.jsonl`` of a training run, and which run it is;
    to be called whenever the run has printed something.

    Args:
        label: printed in front.
        folder: of the run's checkpoints.
        total_steps: number of steps of the run.
        every: seconds between steps that are printed at least.
        write: prints a line.
    """
    started, last = time.monotonic(), -every

    def new_lines() -> Iterator[dict[str, Any]]:
        for line in metrics_file.read(folder):
            place = line["split"], line["step"], line["time"]
            if place not in known:
                known.add(place)
                yield line

    def look(_: str = "") -> None:
        nonlocal last
        now = time.monotonic() - started
        for line in new_lines():
            step = line["step"]
            found = summary({name: math.nan if v is None else v for name, v in line.items()})
            if line["split"] == "val":
                write(f"{label}  {now:4.0f} s  validation: {found}")
            elif now - last >= every or step >= total_steps:
                last = now
                write(f"{label}  {now:4.0f} s  step {step}/{total_steps}  {found}")

    known: set[tuple[str, int, float]] = set()
    list(new_lines())  # of the run before it was interrupted
    return look


def train(
    workdir: Path,
    run_id: str,
    name: str,
    config: dict[str, Any],
    total_steps: int,
    ranks: int,
    seed: int,
    say: Callable[[str], None],
) -> Trained:
    """Train with ``ranks`` processes; goes on where a run of this name was interrupted.

    Args:
        workdir: gets ``configs``, ``output`` (what each run printed), ``checkpoints``, ``logs``.
        run_id: of the demo.
        name: of the run in the demo.

    Raises:
        DensError: the run failed.
    """
    word = f"train-{name}".replace(" ", "-")
    path = workdir / "configs" / run_id / f"{word}.yml"
    write_text(path, yaml.safe_dump(config, sort_keys=False))
    arguments = [
        "--mode", "train", "--config-yml", str(path), "--run-dir", str(workdir), "--cpu",
        "--timestamp-id", f"{run_id}-{word}", "--identifier", f"demo-{word}",
        "--seed", str(seed), "--print-every", str(PRINT_EVERY),
    ]  # fmt: skip
    if ranks > 1:
        arguments += ["--num-gpus", str(ranks)]  # processes, with --cpu
    trained = Trained(name, config, workdir / "checkpoints" / f"{run_id}-{word}")
    progress = training_progress(name, trained.folder, total_steps, write=say)
    run_cli(arguments, log=workdir / "output" / run_id / f"{word}.log", on_line=progress,
            cwd=workdir)  # fmt: skip
    if not trained.checkpoint.is_file():
        raise DensError(f"the training wrote no {trained.checkpoint}; see the output of the run")
    return trained


def evaluate(
    trained: Trained, config: Path, out: Path, seed: int, say: Callable[[str], None]
) -> EvaluationFolder:
    """``dens-ocp evaluate CHECKPOINT --config-yml CONFIG --out OUT --cpu``, two runs at a time."""
    workers = cores()
    say(
        f"dens-ocp evaluate {trained.checkpoint} --config-yml {config} --out {out} --cpu "
        f"--seed {seed} --at-a-time {workers}"
    )
    checkpoint = checkpoint_files.read(trained.checkpoint, torch.device("cpu"))
    settings = load_settings(config, checkpoint, [])
    folder = EvaluationFolder(out)
    words = ("--cpu", "--seed", str(seed))
    start = partial(run_jobs, arguments=words, at_a_time=workers, threads=1)
    evaluated(settings, trained.checkpoint, folder, start, say, (), True, lambda line: None)
    return folder
