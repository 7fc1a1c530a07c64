"""The depth-wise tensor product and the separable one (Equiformer, Section 4.2 and Figure 1)."""

from __future__ import annotations

import torch
from e3nn import nn as e3nn_nn
from e3nn import o3

from dens_ocp.nn.equiformer.linear import IrrepsLinear, draw_weights
from dens_ocp.nn.equiformer.radial import RadialFunction


class DepthwiseTensorProduct(torch.nn.Module):
    """Each input channel times the edge's spherical harmonics, one weight per channel and path.

    Paths: all (l_in, l_edge) -> l_out with an l_out among ``irreps_kept``, and those to l = 0.
    e3nn's ``TensorProduct`` in ``uvu`` mode, without its normalisation of paths; outputs are sorted
    by degree.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_edge: o3.Irreps,
        irreps_kept: o3.Irreps,
        *,
        own_weights: bool = False,
    ) -> None:
        """
        Args:
            irreps_in: (N, dim) inputs.
            irreps_edge: spherical harmonics, one channel each.
            irreps_kept: degrees of the output.
            own_weights: weights are parameters (``tp.weight``); else they come with each call.
        """
        super().__init__()
        paths = [
            (i, j, mul, ir_out)
            for i, (mul, ir_in) in enumerate(irreps_in)
            for j, (_, ir_edge) in enumerate(irreps_edge)
            for ir_out in ir_in * ir_edge
            if ir_out in irreps_kept or ir_out == o3.Irrep("0e")
        ]
        outputs = o3.Irreps([(mul, ir) for _, _, mul, ir in paths]).sort()
        self.tp = o3.TensorProduct(
            irreps_in,
            irreps_edge,
            outputs.irreps,
            [(i, j, outputs.p[k], "uvu", True) for k, (i, j, _, _) in enumerate(paths)],
            internal_weights=own_weights,
            shared_weights=own_weights,
            path_normalization="none",
        )
        self.irreps_out = outputs.irreps
        self.reset_parameters()

    def reset_parameters(self, weight_init: str = "normal") -> None:
        """Draw the weights, if they are parameters; each output has one input."""
        if self.tp.internal_weights:
            draw_weights(self.tp.weight, 1, weight_init)

    def forward(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(E, dim in), (E, dim edge), (E, number of weights) or None -> (E, dim out)."""
        return self.tp(features, harmonics, weights)


class SeparableTensorProduct(torch.nn.Module):
    """A depth-wise tensor product and a linear layer; optionally a gate behind them."""

    def __init__(
        self,
        irreps_in: o3.Irreps,
        irreps_edge: o3.Irreps,
        irreps_out: o3.Irreps,
        *,
        radial: list[int] | None,
        gated: bool = False,
    ) -> None:
        """
        Args:
            irreps_in, irreps_edge, irreps_out: as they say.
            radial: sizes of the function of the distance that gives the weights; None: weights
                are parameters.
            gated: scalars go through SiLU, the others are multiplied by a sigmoid of scalars.
        """
        super().__init__()
        self.dtp = DepthwiseTensorProduct(
            irreps_in, irreps_edge, irreps_out, own_weights=radial is None
        )
        self.dtp_rad = None
        if radial is not None:
            self.dtp_rad = RadialFunction([*radial, self.dtp.tp.weight_numel])
        self.gate = gate_of(irreps_out) if gated else None
        between = irreps_out if self.gate is None else self.gate.irreps_in
        self.lin = IrrepsLinear(self.dtp.irreps_out, between)

    def product(
        self, features: torch.Tensor, harmonics: torch.Tensor, distances: torch.Tensor
    ) -> torch.Tensor:
        """The depth-wise product. ``distances``: (E, number of radial bases)."""
        weights = None if self.dtp_rad is None else self.dtp_rad(distances)
        return self.dtp(features, harmonics, weights)

    def mixed(self, product: torch.Tensor) -> torch.Tensor:
        """What comes after the product: linear layer and gate."""
        mixed = self.lin(product)
        return mixed if self.gate is None else self.gate(mixed)


def gate_of(irreps: o3.Irreps) -> torch.nn.Module:
    """e3nn's ``Gate`` (``Activation``, if there are scalars only) whose output is ``irreps``."""
    scalars = o3.Irreps([(mul, ir) for mul, ir in irreps if ir.l == 0]).simplify()
    gated = o3.Irreps([(mul, ir) for mul, ir in irreps if ir.l > 0])
    if not gated:
        return e3nn_nn.Activation(scalars, [torch.nn.functional.silu])
    gates = o3.Irreps([(gated.num_irreps, "0e")])
    return e3nn_nn.Gate(
        scalars, [torch.nn.functional.silu], gates, [torch.sigmoid], gated
    )
