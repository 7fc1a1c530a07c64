"""The gate: activation of irreps."""

from __future__ import annotations

import torch
from e3nn import o3
from e3nn.math import normalize2mom

from dens_ocp.models.equiformer.degrees import by_degree, cat, joined, split


class Gate(torch.nn.Module):
    """Scalars go through SiLU; each channel of l > 0 is multiplied by the sigmoid of a scalar.

    What e3nn's ``Gate`` does: both functions are scaled to a second moment of 1 for normal inputs.

    Attributes:
        irreps_in: the scalars of the output, then the gates, then l > 0.
    """

    def __init__(self, irreps_out: o3.Irreps) -> None:
        super().__init__()
        self.gated = o3.Irreps([(mul, ir) for mul, ir in irreps_out if ir.l > 0])
        self.scalars, self.gates = irreps_out.count("0e"), self.gated.num_irreps
        scalars = o3.Irreps([(self.scalars + self.gates, "0e")])
        self.irreps_in = scalars + self.gated
        self.activation = normalize2mom(torch.nn.functional.silu)
        self.opening = normalize2mom(torch.sigmoid)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, dim in) -> (N, dim out)."""
        scalars, gates, gated = split(features, [self.scalars, self.gates, self.gated.dim])
        scalars = self.activation(scalars)
        if not self.gates:
            return scalars
        gates = split(self.opening(gates), [mul for mul, _ in self.gated])
        parts = by_degree(gated, self.gated)
        opened = [part * gate[:, :, None] for part, gate in zip(parts, gates, strict=True)]
        return cat([scalars, joined(opened)])
