"""Variants in turn, in one process: a round has one step of each, and each its ratio to stock."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks import batches
from benchmarks.cases import Case
from benchmarks.clock import Clock
from benchmarks.steps import PHASES, Runner
from benchmarks.variants import Variant, of
from dens_ocp.tools.quiet import quiet


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    Attributes:
        device: where. rounds: that count; warm_up: before them. amp: mixed precision (GPU).
        clock: ``user`` or ``wall``: which seconds ratios are of (:class:`~benchmarks.clock.Clock`).
            Other users of a machine lengthen wall clock times, so on a CPU with one thread it is
            the processor's.
        progress: called once a step.
    """

    device: torch.device
    rounds: int = 7
    warm_up: int = 1
    amp: bool = False
    clock: str = "user"
    progress: Callable[[str], Any] = field(default=str, compare=False)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, middle, high = (
            statistics.quantiles(values, n=4, method="inclusive")
            if len(values) > 1
            else [values[0]] * 3
        )
        return cls(middle, low, high)


def ratios(values: Sequence[float], base: Sequence[float]) -> Spread:
    """The spread of round by round ratios."""
    return Spread.of([value / other for value, other in zip(values, base, strict=True)])


def measure(
    case: Case, variants: Sequence[Variant], settings: Settings, prediction: bool = True
) -> dict[str, Any]:
    """Steps and predictions of ``variants`` in turn.

    Returns:
        JSON: ``case``, ``baseline`` (task -> the faster of the stock variants), ``counts`` of the
        batch, and ``variants``: name -> ``step``, ``predict``, ``predict_free``, each with seconds
        of both clocks, phases, and the ratio to the baseline.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = batches.write(
            Path(folder) / "data", batches.records(case.batch, case.structures, case.slab)
        )
        runners = [
            Runner(each, case, data, Path(folder), settings.device, settings.amp)
            for each in variants
        ]
        tasks: dict[str, Callable[[Runner], Clock]] = {"step": Runner.step}
        if prediction:
            tasks["predict"] = Runner.predict
            tasks["predict_free"] = lambda runner: runner.predict(free_only=True)
        clocks = {task: _rounds(case, runners, run, task, settings) for task, run in tasks.items()}
        counts: dict[str, float] = {}
        for runner in runners:
            counts |= runner.counts()
        parameters = {runner.variant.name: runner.parameters() for runner in runners}
    baseline = {task: _baseline(variants, found, settings.clock) for task, found in clocks.items()}
    return {
        "case": {**asdict(case), "name": case.name, "model": case.model()},
        "counts": counts,
        "baseline": baseline,
        "clock": settings.clock,
        "variants": {
            variant.name: {
                "label": variant.label,
                "trainer": variant.trainer,
                "parameters": parameters[variant.name],
                **{
                    task: _summary(found, variant.name, baseline[task], settings.clock)
                    for task, found in clocks.items()
                },
            }
            for variant in variants
        },
    }


def _rounds(
    case: Case, runners: Sequence[Runner], run: Callable, task: str, settings: Settings
) -> dict[str, list[Clock]]:
    found: dict[str, list[Clock]] = {runner.variant.name: [] for runner in runners}
    for number in range(settings.warm_up + settings.rounds):
        # every other round in the other direction, so that no variant always follows the same one
        for runner in runners if number % 2 == 0 else reversed(runners):
            clock = run(runner)
            if number >= settings.warm_up:
                found[runner.variant.name].append(clock)
            settings.progress(f"{case.name} {task} {runner.variant.name}")
    return found


def _seconds(clocks: Sequence[Clock], kind: str) -> list[float]:
    return [sum(getattr(clock, kind).values()) for clock in clocks]


def _baseline(variants: Sequence[Variant], clocks: dict[str, list[Clock]], kind: str) -> str | None:
    stock = [each.name for each in variants if each.stock]
    return min(
        stock, key=lambda name: statistics.median(_seconds(clocks[name], kind)), default=None
    )


def _summary(
    clocks: dict[str, list[Clock]], name: str, baseline: str | None, kind: str
) -> dict[str, Any]:
    own = clocks[name]
    seconds = {each: _seconds(own, each) for each in ("process", "user", "kernel", "wall")}
    phases = {
        phase: statistics.median(getattr(clock, kind)[phase] for clock in own)
        for phase in (*PHASES, "predict")
        if any(phase in getattr(clock, kind) for clock in own)
    }
    found: dict[str, Any] = {
        "seconds": {each: asdict(Spread.of(values)) for each, values in seconds.items()},
        "rounds": seconds,
        "phases": phases,
    }
    for other in clocks:
        found.setdefault("ratio_to", {})[other] = asdict(
            ratios(seconds[kind], _seconds(clocks[other], kind))
        )
        if kind == "user":
            found.setdefault("ratio_with_kernel_to", {})[other] = asdict(
                ratios(seconds["process"], _seconds(clocks[other], "process"))
            )
    if baseline is not None:
        found["ratio"] = found["ratio_to"][baseline]
    shares = [
        sum(getattr(clock, kind)[phase] for phase in ("corruption", "loss", "metrics")) / total
        for clock, total in zip(own, seconds[kind], strict=True)
    ]
    if "backward" in phases:
        found["overhead"] = asdict(Spread.of(shares))
    return found


@quiet()
def timed(
    case: Case, names: Sequence[str], settings: Settings, threads: int, predictions: bool
) -> dict[str, Any]:
    """:func:`measure` of the variants of these names, as a process of its own does it."""
    torch.set_num_threads(threads)
    with tqdm(unit="step", desc=case.name) as bar:

        def progress(what: str) -> None:
            bar.set_postfix_str(what, refresh=False)
            bar.update()

        some = [each for each in of(case) if each.name in names]
        return measure(case, some, replace(settings, progress=progress), predictions)
