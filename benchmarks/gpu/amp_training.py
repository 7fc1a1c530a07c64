"""Thirty steps of the trainer on one batch, with AMP and GradScaler."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from benchmarks.gpu import scenes
from benchmarks.gpu.findings import NOT_ON_A_CPU, Finding, Limit, holds, judged, not_judged
from benchmarks.gpu.parts import Setting
from benchmarks.steps import Runner

STEPS = 30
RATES = {"eqv2": 1e-3, "escn": 3e-3}
"""Learning rates at which thirty steps show; eSCN starts with forces of 1e-6, and slowly."""
FALL = Limit(0.95, "the loss of one batch, taken thirty times, has to fall")
TINY_FALL = Limit(0.998, f"{FALL.why}; a tiny eSCN learns slowly, 0.995")


def fall(losses: Sequence[float]) -> float:
    """Mean of the last five losses over that of the first five; NaN if one is not finite.

    >>> fall([4.0] * 5 + [9.0] + [2.0] * 5)
    0.5
    """
    if not all(map(math.isfinite, losses)):
        return float("nan")
    return statistics.fmean(losses[-5:]) / statistics.fmean(losses[:5])


def run(setting: Setting) -> Iterator[Finding]:
    """Both models of ours, ``fast`` on, EquiformerV2 with CUDA graphs; without AMP on a CPU, where
    the trainer has none."""
    most = TINY_FALL if setting.quick else FALL
    for family in ("eqv2", "escn"):
        some = scenes.case(family, "3", 2, setting.quick)
        name = "graphs" if family == "eqv2" else "fast"
        with scenes.runners(some, [name], setting.device, amp=True) as (runner,):
            amp = runner.trainer.scaler is not None
            row = f"{family}, {STEPS} steps {'with AMP' if amp else 'in float32'}"
            runner.learn_at(RATES[family])
            losses = [_loss(runner) for _ in range(STEPS)]
            runner.trainer.guard.settle()
            yield judged(row, "loss at the end over loss at the start", fall(losses), most)
            if not amp:
                yield not_judged(row, "scale of GradScaler", NOT_ON_A_CPU)
                continue
            scale = runner.trainer.scaler.get_scale()
            # it starts at 65536 and halves at each overflow
            yield holds(row, "scale of GradScaler", 64 <= scale < math.inf, f"{scale:g} at the end")


def _loss(runner: Runner) -> float:
    runner.step()
    return float(runner.loss)
