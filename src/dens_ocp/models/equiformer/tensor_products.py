"""The depth-wise tensor product and the separable one (Equiformer, Section 4.2 and Figure 1)."""

from __future__ import annotations

import torch
from e3nn import o3

from dens_ocp.models.equiformer.irreps import (
    GatedLinear,
    IrrepsLinear,
    by_degree,
    draw_weights,
    joined,
    split,
)


class RadialFunction(torch.nn.Module):
    """Radial bases (E, sizes[0]) -> weights (E, sizes[-1]).

    Linear layers with layer normalisation and SiLU between them. The last layer has no bias; what
    stands for it is the parameter ``offset``, which starts as a bias does in torch.
    """

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        layers: list[torch.nn.Module] = []
        for size_in, size_out in zip(sizes[:-2], sizes[1:-1], strict=True):
            linear = torch.nn.Linear(size_in, size_out)
            torch.nn.init.zeros_(linear.bias)
            layers += [linear, torch.nn.LayerNorm(size_out), torch.nn.SiLU()]
        layers.append(torch.nn.Linear(sizes[-2], sizes[-1], bias=False))
        self.net = torch.nn.Sequential(*layers)
        bound = sizes[-2] ** -0.5
        self.offset = torch.nn.Parameter(torch.empty(sizes[-1]).uniform_(-bound, bound))

    def forward(self, bases: torch.Tensor) -> torch.Tensor:
        return self.net(bases) + self.offset


class DepthwiseTensorProduct(torch.nn.Module):
    """Each input channel times the edge's spherical harmonics, one weight per channel and path.

    Paths: all (l_in, l_edge) -> l_out with an l_out among ``irreps_kept``, and those to l = 0.
    Outputs are sorted by degree. The numbers are those of e3nn's ``TensorProduct`` in ``uvu`` mode
    without normalisation of paths. Here the harmonics become, for each input degree, one matrix per
    edge that maps a channel to the outputs of all its paths.
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
            irreps_in: of the inputs.
            irreps_edge: spherical harmonics, one channel each.
            irreps_kept: degrees of the output.
            own_weights: weights are parameters (``tp.weight``); else they come with each call.
        """
        super().__init__()
        self.irreps_in = irreps_in
        paths = [
            [
                (place, ir_edge, ir_out)
                for place, (_, ir_edge) in zip(irreps_edge.slices(), irreps_edge, strict=True)
                for ir_out in ir_in * ir_edge
                if ir_out in irreps_kept or ir_out == o3.Irrep("0e")
            ]
            for _, ir_in in irreps_in
        ]
        outputs = o3.Irreps(
            [(mul, ir) for (mul, _), own in zip(irreps_in, paths, strict=True) for *_, ir in own]
        )
        self.irreps_out, _, self._order = outputs.sort()
        self._dims = [[ir.dim for *_, ir in own] for own in paths]
        self._channels = [mul for mul, _ in outputs]
        for index, ((_, ir_in), own) in enumerate(zip(irreps_in, paths, strict=True)):
            coupling = torch.zeros(irreps_edge.dim, ir_in.dim, sum(self._dims[index]))
            columns = coupling.split(self._dims[index], dim=2)
            for (place, ir_edge, ir_out), column in zip(own, columns, strict=True):
                wigner = o3.wigner_3j(ir_in.l, ir_edge.l, ir_out.l) * ir_out.dim**0.5
                column[place] = wigner.transpose(0, 1)
            self.register_buffer(f"_coupling_{index}", coupling, persistent=False)
        self.weight_numel = sum(self._channels)
        self.tp = torch.nn.ParameterDict()
        if own_weights:
            self.tp["weight"] = torch.nn.Parameter(torch.empty(self.weight_numel))
        self.reset_parameters()

    def reset_parameters(self, weight_init: str = "normal") -> None:
        """Draw the weights, if they are parameters; each output has one input."""
        for weight in self.tp.values():
            draw_weights(weight, 1, weight_init)

    def forward(
        self, features: torch.Tensor, harmonics: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """(E, dim in), (E, dim edge), (E, ``weight_numel``) or None -> (E, dim out)."""
        weights = self.tp["weight"][None] if weights is None else weights
        products: list[torch.Tensor] = []
        for index, part in enumerate(by_degree(features, self.irreps_in)):
            coupling = getattr(self, f"_coupling_{index}")
            matrices = (harmonics @ coupling.flatten(1)).view(-1, *coupling.shape[1:])
            products += split(torch.bmm(part, matrices), self._dims[index])
        factors = split(weights, self._channels)
        return joined([products[k] * factors[k][:, :, None] for k in self._order])


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
            gated: with a gate behind the linear layer.
        """
        super().__init__()
        self.dtp = DepthwiseTensorProduct(
            irreps_in, irreps_edge, irreps_out, own_weights=radial is None
        )
        self.dtp_rad = None
        if radial is not None:
            self.dtp_rad = RadialFunction([*radial, self.dtp.weight_numel])
        self.lin = (GatedLinear if gated else IrrepsLinear)(self.dtp.irreps_out, irreps_out)

    def product(
        self, features: torch.Tensor, harmonics: torch.Tensor, distances: torch.Tensor
    ) -> torch.Tensor:
        """The depth-wise product, which ``lin`` is applied to. ``distances``: (E, number of radial
        bases)."""
        weights = None if self.dtp_rad is None else self.dtp_rad(distances)
        return self.dtp(features, harmonics, weights)
