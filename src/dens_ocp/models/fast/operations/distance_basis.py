"""Gaussians of the distance without underflow.

Of some hundred Gaussians of a distance a few are not zero. Where the result of an exponential is
zero, or smaller than the smallest normal number, it takes a processor 10 to 30 times as long.
"""

from __future__ import annotations

import math

import torch
from fairchem.core.models.esen.nn.radial import GaussianSmearing as eSENGaussianSmearing
from fairchem.core.models.scn.smearing import GaussianSmearing

from dens_ocp.models.fast.form import FastForm


class _Gaussians(FastForm):
    """Twice the smallest normal number (2.4e-38 in float32), with a gradient of zero, in place of
    what a float cannot hold, or only with fewer digits."""

    coeff: float
    offset: torch.Tensor

    def forward(self, dist: torch.Tensor) -> torch.Tensor:
        if dist.device.type != "cpu" or dist.dtype not in (torch.float32, torch.float64):
            return super().forward(dist)  # type: ignore[misc]
        exponents = self.coeff * torch.pow(dist.view(-1, 1) - self.offset.view(1, -1), 2)
        return torch.exp(exponents.clamp_min(math.log(2 * torch.finfo(dist.dtype).tiny)))


class NormalGaussians(_Gaussians, GaussianSmearing):
    """fairchem's ``GaussianSmearing`` of EquiformerV2 and eSCN."""


class NormaleSENGaussians(_Gaussians, eSENGaussianSmearing):
    """eSEN's."""
