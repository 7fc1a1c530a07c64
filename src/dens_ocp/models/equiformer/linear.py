"""Linear maps of irreps, with the names and the scale of the authors' weights."""

from __future__ import annotations

import torch
from e3nn import o3

from dens_ocp.models.equiformer.degrees import by_degree, joined, split


def draw_weights(weight: torch.Tensor, fan_in: int, weight_init: str) -> None:
    """Fill ``weight`` in place from N(0, 1 / fan_in) (``normal``) or U(-1, 1) / sqrt(fan_in)
    (``uniform``)."""
    with torch.no_grad():
        if weight_init == "uniform":
            weight.uniform_(-1, 1)
        else:
            weight.normal_()
        weight.mul_(fan_in**-0.5)


class IrrepsLinear(torch.nn.Module):
    """y_l = W_l x_l for each degree l, plus a bias for l = 0.

    e3nn's ``Linear`` divides by sqrt(fan-in) in each call; here this factor is in the weights, as
    in the authors' checkpoints. Parameters: ``tp.weight``, the matrices (in, out) of the degrees in
    ascending order, flat; ``bias.0``.
    """

    def __init__(
        self,
        irreps_in: o3.Irreps | str,
        irreps_out: o3.Irreps | str,
        *,
        bias: bool = True,
        one_hot: bool = False,
    ) -> None:
        """
        Args:
            irreps_in: neighbours of one degree count as one (8x0e+4x0e is 12x0e).
            irreps_out: a degree that the input lacks is 0 in the output.
            bias: add a vector to l = 0, if the output has it.
            one_hot: inputs have one entry that is not 0, so weights start with a fan-in of 1.
        """
        super().__init__()
        self.irreps_in = o3.Irreps(irreps_in).simplify()
        self.irreps_out = o3.Irreps(irreps_out).simplify()
        self.one_hot = one_hot
        self._sizes = [mul * self.irreps_out.count(ir) for mul, ir in self.irreps_in]
        weight = torch.nn.Parameter(torch.empty(sum(self._sizes)))
        self.tp = torch.nn.ParameterDict({"weight": weight})
        scalars = self.irreps_out.count("0e") if bias else 0
        self.bias = torch.nn.ParameterList([torch.zeros(scalars)] if scalars else [])
        self.reset_parameters()

    def reset_parameters(self, weight_init: str = "normal") -> None:
        """Draw the weights, see :func:`draw_weights`."""
        for weight, (mul, _) in zip(self._matrices(), self.irreps_in, strict=True):
            draw_weights(weight, 1 if self.one_hot else mul, weight_init)

    def _matrices(self) -> list[torch.Tensor]:
        """W_l (in, out) for each degree of the input."""
        flat = split(self.tp["weight"], self._sizes)
        return [w.view(mul, -1) for w, (mul, _) in zip(flat, self.irreps_in, strict=True)]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, dim of ``irreps_in``) -> (N, dim of ``irreps_out``)."""
        mapped = {
            ir: torch.einsum("nim,io->nom", part, weight)
            for (_, ir), part, weight in zip(
                self.irreps_in, by_degree(features, self.irreps_in), self._matrices(), strict=True
            )
            if weight.numel() > 0
        }
        outputs = []
        for mul, ir in self.irreps_out:
            output = mapped.get(ir)
            if output is None:
                output = features.new_zeros(features.shape[0], mul, ir.dim)
            if ir.l == 0 and len(self.bias):
                output = output + self.bias[0][:, None]
            outputs.append(output)
        return joined(outputs)
