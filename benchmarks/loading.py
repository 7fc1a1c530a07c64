"""Reading, collating and building graphs, beside the step that they feed."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks import batches
from benchmarks.cases import Case
from benchmarks.clock import Clock
from benchmarks.measure import Settings
from benchmarks.steps import Runner
from benchmarks.variants import Variant

BATCHES = 24
WORKERS = (0, 2)


def run(case: Case, variant: Variant, settings: Settings) -> dict[str, Any]:
    """Seconds of wall clock a batch.

    Returns:
        ``load``: workers -> median and 90th percentile of the wait for a batch (LMDB, unpickling,
        checks, collation) by a loop that, with workers, takes a batch as often as a step ends;
        ``graph``: edges of a batch, built in each forward; ``step``.
    """
    with tempfile.TemporaryDirectory() as folder:
        structures = batches.records(case.batch, case.structures * BATCHES, case.slab)
        data = batches.write(Path(folder) / "data", structures)
        runner = Runner(variant, case, data, Path(folder), settings.device, settings.amp)
        trainer = runner.trainer
        steps, graphs = [], []
        for _ in range(settings.warm_up + settings.rounds):
            steps.append(sum(runner.step().wall.values()))
            batch = runner.batch().to(settings.device)
            clock = Clock(settings.device)
            with clock.phase("graph"), torch.no_grad():
                trainer._unwrapped_model.generate_graph(batch)
            graphs.append(sum(clock.wall.values()))
            settings.progress(f"{case.name} data {variant.name}")
        step = statistics.median(steps[settings.warm_up :])
        waits = {}
        for workers in WORKERS:
            loader = trainer.get_dataloader(trainer.train_dataset, trainer.train_sampler, workers)
            waits[str(workers)] = _waits(loader, pause=step if workers else 0.0)
            settings.progress(f"{case.name} data, {workers} workers")
    return {
        "case": case.name,
        "variant": variant.label,
        "step": step,
        "graph": statistics.median(graphs[settings.warm_up :]),
        "load": waits,
    }


def _waits(loader: Any, pause: float) -> dict[str, float]:
    """How long a loop waits for each batch; between batches it sleeps ``pause`` seconds, at most
    half a second, where a step would compute. The first batch is left out: workers start."""
    waits, batches_left = [], iter(loader)
    while True:
        start = time.perf_counter()
        try:
            next(batches_left)
        except StopIteration:
            break
        waits.append(time.perf_counter() - start)
        time.sleep(min(pause, 0.5))
    waits = sorted(waits[1:])
    return {"median": statistics.median(waits), "p90": waits[int(0.9 * (len(waits) - 1))]}
