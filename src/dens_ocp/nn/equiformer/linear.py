"""Linear maps of irreps, with the names and the scale of the authors' weights."""

from __future__ import annotations

import torch
from e3nn import o3


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
        sizes = [mul * self.irreps_out.count(ir) for mul, ir in self.irreps_in]
        self.tp = torch.nn.ParameterDict({"weight": torch.nn.Parameter(torch.empty(sum(sizes)))})
        self._sizes = sizes
        scalars = self.irreps_out.count("0e") if bias else 0
        self.bias = torch.nn.ParameterList([torch.zeros(scalars)] if scalars else [])
        self.reset_parameters()

    def reset_parameters(self, weight_init: str = "normal") -> None:
        """Draw the weights, see :func:`draw_weights`."""
        for weight, (mul, _) in zip(self._matrices(), self.irreps_in, strict=True):
            draw_weights(weight, 1 if self.one_hot else mul, weight_init)

    def _matrices(self) -> list[torch.Tensor]:
        """W_l (in, out) for each degree of the input."""
        flat = self.tp["weight"].split(self._sizes)
        return [w.view(mul, -1) for w, (mul, _) in zip(flat, self.irreps_in, strict=True)]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, dim of ``irreps_in``) -> (N, dim of ``irreps_out``)."""
        num = features.shape[0]
        parts = {}
        for (mul, ir), part, weight in zip(
            self.irreps_in, self.irreps_in.slices(), self._matrices(), strict=True
        ):
            if weight.shape[1] > 0:
                x = features[:, part].view(num, mul, ir.dim)
                parts[ir] = torch.einsum("nim,io->nom", x, weight).reshape(num, -1)
        outputs = [
            parts[ir] if ir in parts else features.new_zeros(num, mul * ir.dim)
            for mul, ir in self.irreps_out
        ]
        if len(self.bias):
            index = [ir for _, ir in self.irreps_out].index(o3.Irrep("0e"))
            outputs[index] = outputs[index] + self.bias[0]
        return torch.cat(outputs, dim=1)
