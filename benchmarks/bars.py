"""The bars that the project set itself, and where in the results each is measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Bar:
    """One row of the table.

    Attributes:
        text: what is compared. limit: of the ratio. at_least: the limit is the least, not the most.
        case, variant: whose. quantity: ``step``, ``predict``, ``predict_free`` (ratios of seconds),
            ``throughput`` (the inverse of predict's), ``memory``, ``overhead`` (share of a step).
        against: the other variant; None: the baseline, stock fairchem without DeNS.
    """

    text: str
    limit: float
    case: str
    variant: str
    quantity: str = "step"
    against: str | None = None
    at_least: bool = False


@dataclass(frozen=True)
class Measured:
    """Ratio and quartiles of rounds; a ratio of memory has none. ``with_kernel``: the ratio of
    all processor time, if ``ratio`` is of user mode's."""

    ratio: float
    low: float | None = None
    high: float | None = None
    with_kernel: float | None = None


BARS = (
    Bar("DeNS training step, 12 layers, OC20-like slabs", 0.95, "eqv2-12/oc20", "ours"),
    Bar("DeNS training step, 3 layers, OC20-like slabs", 0.85, "eqv2-3/oc20", "ours"),
    Bar("DeNS training step, 12 layers, all atoms free", 1.03, "eqv2-12/free", "ours"),
    Bar("eSCN with DeNS, 3 layers, heads alone, OC20-like slabs", 1.00, "escn-3/oc20", "ours"),
    Bar("eSCN with DeNS, 3 layers, fast, OC20-like slabs", 1.00, "escn-3/oc20", "fast"),
    Bar("eSCN with DeNS, 12 layers, heads alone, OC20-like slabs", 1.00, "escn-12/oc20", "ours"),
    Bar("eSCN with DeNS, 12 layers, fast, OC20-like slabs", 1.00, "escn-12/oc20", "fast"),
    Bar("eSEN with DeNS, 3 layers, fast, OC20-like slabs", 0.60, "esen-3/oc20", "fast"),
    Bar("eSEN with DeNS, forces that are gradients, 3 layers, fast, OC20-like slabs", 0.85,
        "esen_gradient-3/oc20", "fast"),
    Bar("peak memory, DeNS training, heads alone, 12 layers", 1.00, "eqv2-12/oc20", "ours",
        "memory"),
    Bar("prediction with a DeNS checkpoint, forces of all atoms, heads alone, 12 layers", 1.00,
        "eqv2-12/oc20", "ours", "predict"),
    Bar("prediction with a DeNS checkpoint, forces of free atoms, heads alone, 12 layers", 1.00,
        "eqv2-12/oc20", "ours", "predict_free"),
    Bar("prediction with a DeNS checkpoint, forces of all atoms, fast, 12 layers", 1.00,
        "eqv2-12/oc20", "fast", "predict"),
    Bar("fast: DeNS training step, 12 layers, OC20-like slabs", 0.50, "eqv2-12/oc20", "fast"),
    Bar("fast: DeNS training step, 3 layers, OC20-like slabs", 0.40, "eqv2-3/oc20", "fast"),
    Bar("fast: DeNS training step, 12 layers, all atoms free", 0.58, "eqv2-12/free", "fast"),
    Bar("fast: DeNS training step with stress, 3 layers, all atoms free", 0.55, "eqv2-3/stress",
        "fast"),
    Bar("fast: against fairchem's own DeNS, 3 layers", 0.33, "eqv2-3/oc20", "fast",
        against="fairchem-dens"),
    Bar("fast: peak memory of a DeNS step, 12 layers", 0.50, "eqv2-12/oc20", "fast", "memory"),
    Bar("fast: prediction throughput, forces of all atoms, 12 layers", 1.8, "eqv2-12/oc20",
        "fast", "throughput", at_least=True),
    Bar("corruption, loss and metrics, share of our step, 3 layers", 0.01, "eqv2-3/oc20", "ours",
        "overhead"),
)  # fmt: skip


def look_up(bar: Bar, results: list[dict[str, Any]]) -> Measured | None:
    """What was measured for ``bar``; None: it was not."""
    for result in results:
        if result["case"]["name"] != bar.case or bar.variant not in result["variants"]:
            continue
        task = {"throughput": "predict", "memory": "step", "overhead": "step"}.get(
            bar.quantity, bar.quantity
        )
        against = bar.against or result["baseline"].get(task)
        found = result["variants"][bar.variant]
        if bar.quantity == "overhead":
            return _spread(found["step"]["overhead"])
        if against not in result["variants"]:
            return None
        if bar.quantity == "memory":
            sizes = [result["variants"][each].get("memory") for each in (bar.variant, against)]
            if None in sizes:
                return None
            return Measured(sizes[0]["peak"] / sizes[1]["peak"])
        if task not in found:
            return None
        ratio = _spread(found[task]["ratio_to"][against])
        more = found[task].get("ratio_with_kernel_to")
        kernel = more[against]["median"] if more else None
        if bar.quantity == "throughput":
            inverse = 1 / kernel if kernel else None
            return Measured(1 / ratio.ratio, 1 / ratio.high, 1 / ratio.low, inverse)
        return dataclasses.replace(ratio, with_kernel=kernel)
    return None


def _spread(found: dict[str, float]) -> Measured:
    return Measured(found["median"], found["low"], found["high"])


def reached(bar: Bar, measured: Measured) -> bool:
    return measured.ratio >= bar.limit if bar.at_least else measured.ratio <= bar.limit
