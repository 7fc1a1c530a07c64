"""fairchem's smooth leaky ReLU with one tensor kept for the backward pass instead of three."""

from __future__ import annotations

import torch
from fairchem.core.models.equiformer_v2.activation import SmoothLeakyReLU


class SiluLeakyReLU(SmoothLeakyReLU):
    """a x + (1 - a) SiLU(x), which is what (1 + a)/2 x + (1 - a)/2 x (2 sigmoid(x) - 1) comes to.

    Shape: any to the same.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(self.alpha * x, torch.nn.functional.silu(x), alpha=1 - self.alpha)
