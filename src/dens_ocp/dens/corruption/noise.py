"""Which sigma: one number, or one drawn per structure from a schedule."""

from __future__ import annotations

import math

import torch

from dens_ocp.dens.config import MultiScaleSigma


def sigma_levels(sigma: float | MultiScaleSigma) -> torch.Tensor:
    """The noise levels, (num_levels,) float32, Angstrom, ascending.

    A schedule has ``num_steps`` levels, evenly spaced in the logarithm (authors' code,
    ``add_gaussian_noise_schedule_to_position``).
    """
    if not isinstance(sigma, MultiScaleSigma):
        return torch.tensor([sigma], dtype=torch.float32)
    ends = (math.log(sigma.low), math.log(sigma.high))
    return torch.linspace(*ends, sigma.num_steps, dtype=torch.float64).exp().float()


def draw_sigmas(
    sigma: float | MultiScaleSigma, num_structures: int, generator: torch.Generator
) -> torch.Tensor:
    """One sigma per structure, (B,) float32, Angstrom."""
    levels = sigma_levels(sigma)
    index = torch.randint(len(levels), (num_structures,), generator=generator)
    return levels[index]
