"""``fast: auto`` on a GPU: a batch is computed in both forms, and the faster one stays."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from dens_ocp.models.dens_model import DeNSModel

TIMED_ON = {"cuda"}
"""Kinds of devices on which ``auto`` measures. On a CPU the fast form was the faster one on every
processor that it was measured on (docs/performance.md), and runs there repeat to the last bit."""

ROUNDS = 3
"""Of each form, in turn, after one run of each that does not count."""


def is_timed(model: object, device: torch.device) -> bool:
    """Whether the form of ``model`` is to be chosen on ``device``, and has not been."""
    return device.type in TIMED_ON and getattr(model, "form_is_open", False)


def seconds(
    model: DeNSModel, run: Callable[[], object], device: torch.device
) -> tuple[float, float]:
    """Seconds of ``run`` with the fast form of ``model`` and with fairchem's: the least of
    :data:`ROUNDS`. A form that does not fit into the memory takes infinitely long.

    The model has its fast form afterwards, and the memory that the trial took is given back.
    """
    found = {True: float("inf"), False: float("inf")}
    fitting = [True, False]
    for number in range(1 + ROUNDS):
        for fast in tuple(fitting):
            model.take_form(fast)
            try:
                taken = _timed(run, device)
            except torch.cuda.OutOfMemoryError:
                fitting.remove(fast)
                found[fast] = float("inf")
                continue
            if number:
                found[fast] = min(found[fast], taken)
    model.take_form(True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return found[True], found[False]


def _timed(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    start = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def said(fast: float, stock: float) -> str:
    """What was measured, for the log."""
    form = "the fast path" if fast <= stock else "the stock path"
    return (
        f"model.fast: auto: the first batch takes {_milliseconds(fast)} on the fast path and "
        f"{_milliseconds(stock)} on the stock path; {form} is used"
    )


def _milliseconds(value: float) -> str:
    return "more memory than the device has" if value == float("inf") else f"{1000 * value:.1f} ms"
