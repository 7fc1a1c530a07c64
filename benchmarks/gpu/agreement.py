"""Energies, forces, noise and gradients on the GPU beside those in float32 on the CPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from benchmarks.cases import Case
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
        Limit(6e-2, _MEASURED.format(4, "1.4e-2; with a graph in bfloat16 it was 3e-1")),
    ),
}
"""Precision -> limits of the energy's relative difference and of that of the three others."""


def limit(quantity: str, name: str) -> Limit:
    """Of the relative difference of a quantity in the precision ``name``."""
    energy, others = _LIMITS[name]
    return energy if quantity == "energy" else others


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
    row: str, name: str, found: dict[str, torch.Tensor], reference: dict[str, torch.Tensor]
) -> list[Finding]:
    """A finding for each of :data:`QUANTITIES`.

    Args:
        row: of the report. name: of the precision.
        found, reference: of :meth:`~benchmarks.steps.Runner.answers`.
    """
    return [
        judged(row, each, relative(found[each], reference[each]), limit(each, name))
        for each in QUANTITIES
    ]


def answers(runner: Runner, how: Precision) -> dict[str, torch.Tensor]:
    """What a step computes in a precision; edge frames follow from the geometry, because devices
    draw different random numbers."""
    with how.of(runner), FromGeometry():
        return runner.answers(how.loss_scale)


def run(setting: Setting, family: str) -> Iterator[Finding]:
    """Rows of the models of a family, heads alone and ``fast``, in all precisions."""
    some: Case = scenes.without_dropout(scenes.case(family, "3", 2, setting.quick))
    if not setting.quick:
        some = dataclasses.replace(some, slab=scenes.SMALL_SLAB)
    with scenes.runners(some, ["ours"], torch.device("cpu")) as (runner,):
        reference = answers(runner, precision.FLOAT32)
    with scenes.runners(some, ["ours", "fast"], setting.device) as both:
        for runner in both:
            for how in precision.ALL:
                row = f"{family}, {runner.variant.label}, {how.name}"
                if not how.there(setting.device):
                    yield not_judged(row, ", ".join(QUANTITIES), NOT_ON_A_CPU)
                    continue
                yield from judge(row, how.name, answers(runner, how), reference)
