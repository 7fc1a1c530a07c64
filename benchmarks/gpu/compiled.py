"""Whether ``torch.compile`` makes a step faster, where it works."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import torch

from benchmarks.gpu import scenes, speed
from benchmarks.gpu.findings import Finding, skipped
from benchmarks.gpu.parts import Setting
from benchmarks.steps import Runner

ROUNDS = 5
CPU_BACKEND = "eager"
"""On a CPU the graph is traced and not compiled: its compiler takes minutes."""


def run(setting: Setting, name: str) -> Iterator[Finding]:
    """A step of a variant with its model compiled beside the same without; a failure is a
    finding."""
    if setting.quick and name != "fast":
        yield skipped(f"compile, {name}", "a rehearsal compiles one model: it takes long")
        return
    some = scenes.case("eqv2", "3", 16, setting.quick)
    backend = "inductor" if setting.cuda else CPU_BACKEND
    with scenes.runners(some, [name], setting.device) as (runner,):
        row = {
            "kind": "compile", "variant": name, "label": runner.variant.label, "backend": backend,
            "case": some.name, "structures": some.structures,
        }  # fmt: skip
        for _ in range(speed.WARM_UP):
            speed.step(runner)
        plain = _median(runner)
        torch._dynamo.reset()
        runner.trainer.model.compile(backend=backend)
        try:
            first = speed.seconds(speed.step, runner)
            speed.step(runner)
            compiled = _median(runner)
        except Exception as error:  # whatever a compiler raises
            yield {**row, "error": f"{type(error).__name__}: {error}"[:400]}
            return
        yield {
            **row, "ms": 1e3 * compiled, "ms_without": 1e3 * plain, "ratio": compiled / plain,
            "first_step_seconds": first,
        }  # fmt: skip


def _median(runner: Runner) -> float:
    return statistics.median(speed.seconds(speed.step, runner) for _ in range(ROUNDS))
