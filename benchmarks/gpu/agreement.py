"""Energies, forces, noise and gradients on the GPU beside those in float32 on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from benchmarks.gpu import precision, scenes
from benchmarks.gpu.findings import NOT_ON_A_CPU, Finding, Limit, judged, not_judged
from benchmarks.gpu.parts import Setting
from benchmarks.gpu.precision import Precision
from benchmarks.steps import Runner
from dens_ocp.relaxation.repeatable_frames import FromGeometry

QUANTITIES = ("energy", "forces", "noise", "gradient")

_MEASURED = "about {} times what an H100 gave for EquiformerV2 (docs/gpu/h100.md: {})"
_LIMITS = {
    "float32": (
        Limit(1e-5, _MEASURED.format(100, "1e-7, the last digit of float32")),
        Limit(5e-5, _MEASURED.format(10, "4e-6; sums in another order")),
    ),
    "TF32": (
        Limit(2e-3, _MEASURED.format(10, "2e-4")),
        Limit(1e-2, _MEASURED.format(5, "2e-3; products have 10 bits, 1e-3 each")),
    ),
    "float16": (
        Limit(5e-3, _MEASURED.format(5, "1e-3")),
        Limit(1e-2, _MEASURED.format(5, "2e-3; 10 bits, as TF32")),
    ),
    "bfloat16": (
        Limit(2.5e-2, _MEASURED.format(5, "5e-3")),
        Limit(
            6e-2,
            _MEASURED.format(
                4, "1.4e-2; with a graph in bfloat16 it was 3e-1; eSCN on a CPU: 2e-2"
            ),
        ),
    ),
}
"""Precision -> limits of the energy's relative difference and of that of the three others."""


TINY = 5.0
"""By so much limits of half precisions are wider for tiny models: their rounding averages over 8
channels instead of 128. In bfloat16 on a CPU gradients of tiny models are off by up to 0.14."""

TRAINED = 0.85
MOST_STEPS, RATE = 100, 3e-3
"""Before it is compared, eSCN is trained on the batch until its loss is this share of the first.
Forces of a new one are 1e-6, differences of numbers that are nearly equal, and in half precision
mere rounding (EquiformerV2's are not). Longer would be worse: where the loss is small its gradient
is the direction of a small difference."""


def limit(quantity: str, name: str, quick: bool = False) -> Limit:
    """Of the relative difference of a quantity in the precision ``name``."""
    energy, others = _LIMITS[name]
    found = energy if quantity == "energy" else others
    if quick and name in ("bfloat16", "float16"):
        return Limit(TINY * found.most, f"{found.why}; {TINY:g} times wider for tiny models")
    return found


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Norm of the difference over that of ``reference``; NaN where anything is not finite.

    >>> relative(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0])) < 0.2
    True
    """
    if not bool(torch.isfinite(found).all()):
        return float("nan")
    difference = (found - reference).double().norm()
    return float(difference / reference.double().norm().clamp(min=1e-30))


def judge(
    row: str,
    name: str,
    found: dict[str, torch.Tensor],
    reference: dict[str, torch.Tensor],
    quick: bool = False,
) -> list[Finding]:
    """A finding for each of :data:`QUANTITIES`.

    Args:
        row: of the report. name: of the precision.
        found, reference: of :meth:`~benchmarks.steps.Runner.answers`.
        quick: the model is a tiny one.
    """
    return [
        judged(row, each, relative(found[each], reference[each]), limit(each, name, quick))
        for each in QUANTITIES
    ]


def answers(runner: Runner, how: Precision) -> dict[str, torch.Tensor]:
    """What a step computes in a precision; edge frames follow from the geometry, because devices
    draw different random numbers."""
    with how.of(runner), FromGeometry():
        return runner.answers()


def run(setting: Setting, family: str) -> Iterator[Finding]:
    """Rows of the models of a family, heads alone and ``fast``, in all precisions."""
    some = scenes.without_dropout(scenes.case(family, "3", 2, setting.quick))
    some = dataclasses.replace(some, batch="free")  # more atoms are corrupted
    with (
        scenes.runners(some, ["ours"], torch.device("cpu")) as (on_cpu,),
        scenes.runners(some, ["ours", "fast"], setting.device) as both,
    ):
        if family == "escn":
            train(both[-1])
            for runner in (on_cpu, both[0]):
                runner.trainer.model.load_state_dict(both[-1].trainer.model.state_dict())
        reference = answers(on_cpu, precision.FLOAT32)
        for runner in both:
            for how in precision.ALL:
                row = f"{family}, {runner.variant.label}, {how.name}"
                if how.there(setting.device):
                    found = answers(runner, how)
                    yield from judge(row, how.name, found, reference, setting.quick)
                else:
                    yield not_judged(row, ", ".join(QUANTITIES), NOT_ON_A_CPU)


def train(runner: Runner) -> None:
    """Steps on the runner's batch, to :data:`TRAINED` of the first loss."""
    runner.learn_at(RATE)
    runner.step()
    first = float(runner.loss)
    for _ in range(MOST_STEPS):
        if float(runner.loss) <= TRAINED * first:
            break
        runner.step()
    runner.trainer.guard.settle()
