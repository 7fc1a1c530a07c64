"""The training runs of a plan, and where they stand."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from dens_ocp.checkpoints import checkpoint_files, metrics_file
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder, difference
from dens_ocp.results.pipeline.jobs import run_jobs
from dens_ocp.results.pipeline.options import load_settings
from dens_ocp.results.pipeline.process import run_cli
from dens_ocp.tools.ablate.plan import Plan, Score, config_of, score_of
from dens_ocp.tools.evaluate import evaluated
from dens_ocp.whole_files import write_text

_LOOK_EVERY = 2.0  # seconds, at metrics.jsonl


@dataclass(frozen=True)
class Run:
    """A training run and its score.

    ::

        configs/NAME.yml, NAME.evaluate.yml
        checkpoints/NAME, logs/..., output/NAME.log
        runs/NAME.json               seconds of training, of the processor, number of starts
        evaluations/NAME/scores.json

    Attributes:
        base, variant, seed: which one.
        config: of fairchem.
        score: data sets by split.
        out: folder of the ablation.
        checkpoint_kind: ``best`` or ``last``.
    """

    base: str
    variant: str
    seed: int
    config: dict[str, Any]
    score: Score
    out: Path
    checkpoint_kind: str

    @property
    def name(self) -> str:
        """``aspirin-dens-seed0``; fairchem's timestamp-id."""
        return "-".join([*([self.base] if self.base else []), self.variant, f"seed{self.seed}"])

    @property
    def config_path(self) -> Path:
        return self.out / "configs" / f"{self.name}.yml"

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints" / self.name

    @property
    def notes(self) -> Path:
        return self.out / "runs" / f"{self.name}.json"

    @property
    def evaluation(self) -> EvaluationFolder:
        return EvaluationFolder(self.out / "evaluations" / self.name)

    @property
    def epochs(self) -> float:
        """How many the config asks for."""
        return float(self.config["optim"].get("max_epochs", 0))

    def epoch(self) -> float:
        """How far the newest checkpoint is; 0 without one."""
        path = self.checkpoints / "checkpoint.pt"
        if not path.is_file():
            return 0.0
        return float(checkpoint_files.read(path, torch.device("cpu")).get("epoch", 0.0))

    def is_trained(self) -> bool:
        """Whether the newest checkpoint is that of the end."""
        return 0 < self.epochs <= self.epoch() + 1e-6

    def read_scores(self) -> dict[str, dict[str, float]] | None:
        """By split, and the average over splits, by name with unit; None: not scored yet."""
        scores = self.evaluation.scores("json")
        if not scores.is_file():
            return None
        return json.loads(scores.read_text())["scores"]["s2ef"]

    def read_notes(self) -> dict[str, Any]:
        """``seconds`` of training, ``processor_seconds`` of all its processes, and ``starts``."""
        nothing = {"seconds": 0.0, "processor_seconds": 0.0, "starts": 0}
        if not self.notes.is_file():
            return nothing
        return nothing | json.loads(self.notes.read_text())

    def state(self) -> str:
        """Where it stands, in words."""
        if self.read_scores() is not None:
            return "done"
        if self.is_trained():
            return "trained, not scored"
        return f"epoch {self.epoch():g} of {self.epochs:g}"


def runs_of(plan: Plan, plan_folder: Path, out: Path) -> list[Run]:
    """All runs: bases, then seeds, then variants, so that an early table compares.

    Raises:
        DensError: a mistake in a config.
    """
    runs = []
    for base in plan.bases:
        configs = {name: config_of(plan, plan_folder, base, name) for name in plan.variants}
        runs += [
            Run(base, name, seed, config, score_of(plan, base, config), out, plan.checkpoint)
            for seed in plan.seeds
            for name, config in configs.items()
        ]
    return runs


def write_config(run: Run) -> None:
    """Write the run's config.

    Raises:
        DensError: the run was started with another one.
    """
    if run.config_path.is_file() and (run.checkpoints / "checkpoint.pt").is_file():
        before = yaml.safe_load(run.config_path.read_text())
        if before != run.config:
            raise DensError(
                f"--out: {run.out} holds the run {run.name} with other settings "
                f"({difference(before, run.config)}); name another folder, or remove "
                f"{run.checkpoints}, {run.notes} and {run.evaluation.path}"
            )
    write_text(run.config_path, yaml.safe_dump(run.config, sort_keys=False))


def arguments_of(run: Run, options: list[str]) -> list[str]:
    """What ``dens-ocp main`` is called with to train, or to go on."""
    return [
        "--mode", "train", "--config-yml", str(run.config_path), "--run-dir", str(run.out),
        "--timestamp-id", run.name, "--identifier", run.name, "--seed", str(run.seed), *options,
    ]  # fmt: skip


def train(run: Run, options: list[str], on_epoch: Callable[[float], None]) -> None:
    """Train to the end, from the newest checkpoint if there is one.

    Args:
        run: which. options: of ``fairchem main``.
        on_epoch: told now and then how many epochs are done, from the run's ``metrics.jsonl``.

    Raises:
        DensError: the run failed, or was told to stop.
    """
    write_config(run)
    notes = run.read_notes()
    log = run.out / "output" / f"{run.name}.log"
    if log.is_file():
        log.replace(log.with_suffix(f".{notes['starts']}.log"))
    started = looked = time.monotonic()
    worked = _processor_seconds()

    def look(_line: str) -> None:
        nonlocal looked
        if time.monotonic() > looked + _LOOK_EVERY:
            looked = time.monotonic()
            if lines := metrics_file.read(run.checkpoints, "train"):
                on_epoch(lines[-1]["epoch"])

    try:
        run_cli(arguments_of(run, options), log=log, on_line=look, threads=None)
    finally:
        notes = {
            "seconds": notes["seconds"] + time.monotonic() - started,
            "processor_seconds": notes["processor_seconds"] + _processor_seconds() - worked,
            "starts": notes["starts"] + 1,
        }
        write_text(run.notes, json.dumps(notes) + "\n")
    if not run.is_trained():
        raise DensError(
            f"{run.name} ended at epoch {run.epoch():g} of {run.epochs:g} (see {log}); run the "
            "same command again to resume"
        )


def _processor_seconds() -> float:
    """Of the processes that have been started here and have ended."""
    of_children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of_children.ru_utime + of_children.ru_stime


def evaluate(run: Run, options: list[str] | None, say: Callable[[str], None]) -> list[str]:
    """Score the checkpoint on the plan's data sets; what is done stays.

    Args:
        options: of fairchem main, without ``--amp``: mixed precision is for training; None:
            predict nothing, score what is predicted.

    Returns:
        SLURM jobs that were submitted instead.

    Raises:
        DensError: no checkpoint; a prediction that failed.
    """
    name = "best_checkpoint.pt" if run.checkpoint_kind == "best" else "checkpoint.pt"
    checkpoint = run.checkpoints / name
    if not checkpoint.is_file():
        raise DensError(
            f"{run.name} has no {name}; a best checkpoint needs a validation (optim.eval_every); "
            "or write checkpoint: last in the plan"
        )
    settings = {"evaluation": {"s2ef": run.score}, "task": {"prediction_dtype": "float32"}}
    path = run.config_path.with_suffix(".evaluate.yml")
    write_text(path, yaml.safe_dump(settings, sort_keys=False))
    evaluation = load_settings(path, checkpoint_files.read(checkpoint, torch.device("cpu")), [])
    start = None
    if options is not None:
        start = partial(run_jobs, arguments=[word for word in options if word != "--amp"])
    return evaluated(evaluation, checkpoint, run.evaluation, start, say, show=lambda line: None)
