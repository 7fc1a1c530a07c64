"""Matrix products of float32 on a CPU: torch's own (MKL) beside oneDNN's, which ``fast`` uses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from dens_ocp.models.fast.operations.matrix_products import product, uses_onednn, weight_gradient

SHAPES = (
    ("first SO(2) convolution, m = 0", 1480, 1280, 896),
    ("first SO(2) convolution, m = 1", 1480, 2048, 1024),
    ("radial function, last layer", 1480, 128, 3072),
    ("network on the grid", 14504, 128, 128),
)
"""Name, rows, inputs, outputs: of 1480 edges or 74 atoms at Lmax 4."""

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
TASKS: dict[str, tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]] = {
    "forward": (lambda x, w, g: x @ w.t(), lambda x, w, g: product(x, w)),
    "gradient of x": (lambda x, w, g: g @ w, lambda x, w, g: product(g, w.t())),
    "gradient of weight": (lambda x, w, g: g.t() @ x, lambda x, w, g: weight_gradient(g, x)),
}
"""torch's and ours, of x (rows, inputs), weight (outputs, inputs), gradient (rows, outputs)."""


def run(rounds: int = 7) -> list[dict[str, Any]]:
    """GFLOP/s of each product, forward and of both gradients, torch's and oneDNN's in turn."""
    found = []
    for name, rows, inputs, outputs in SHAPES:
        tensors = (
            torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
        )  # fmt: skip
        for task, functions in TASKS.items():
            seconds = [[_seconds(each, tensors) for each in functions] for _ in range(rounds + 1)]
            rates = [
                2e-9 * rows * inputs * outputs / statistics.median(each[1:])
                for each in zip(*seconds, strict=True)
            ]
            found.append(
                {"product": f"{name}, {task}", "shape": [rows, inputs, outputs],
                 "torch": rates[0], "ours": rates[1], "onednn": uses_onednn(*tensors)}
            )  # fmt: skip
    return found


def _seconds(function: Callable[..., torch.Tensor], tensors: Tensors) -> float:
    start = time.process_time()
    function(*tensors)
    return time.process_time() - start
