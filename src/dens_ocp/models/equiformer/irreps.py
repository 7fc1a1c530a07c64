"""Features by degree: taken apart and put together, linear maps, gate, layer normalisation.

Names and scale of weights are those of the authors' checkpoints.

In torch the gradient of ``cat`` is slices, and that of a slice a tensor of the whole size filled
with zeros. In a loss of forces, which are gradients, half of the time went there. Here the
gradient of taking apart is putting together and the other way round, in each order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from e3nn import o3
from e3nn.math import normalize2mom


class _Parts(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, sizes: list[int], whole: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return whole.split(sizes, dim=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, _Whole.apply(*gradients)


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *parts: torch.Tensor) -> torch.Tensor:
        ctx.sizes = [part.shape[-1] for part in parts]
        return torch.cat(parts, dim=-1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return _Parts.apply(ctx.sizes, gradient)


def split(whole: torch.Tensor, sizes: Sequence[int]) -> tuple[torch.Tensor, ...]:
    """Parts of the last axis; they are not to be changed in place."""
    return _Parts.apply(list(sizes), whole)


def cat(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Parts joined along the last axis."""
    return _Whole.apply(*parts)


def by_degree(features: torch.Tensor, irreps: o3.Irreps) -> list[torch.Tensor]:
    """(N, dim) -> for each degree (N, mul, 2 l + 1)."""
    parts = split(features, [mul * ir.dim for mul, ir in irreps])
    return [
        part.reshape(part.shape[0], mul, ir.dim)
        for part, (mul, ir) in zip(parts, irreps, strict=True)
    ]


def joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """(N, any, any) each -> (N, dim)."""
    return cat([part.flatten(1) for part in parts])


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
        factors = split(self.opening(gates), [mul for mul, _ in self.gated])
        parts = by_degree(gated, self.gated)
        opened = [part * gate[:, :, None] for part, gate in zip(parts, factors, strict=True)]
        return cat([scalars, joined(opened)])


class GatedLinear(IrrepsLinear):
    """A linear layer and a gate."""

    def __init__(self, irreps_in: o3.Irreps, irreps_out: o3.Irreps) -> None:
        gate = Gate(irreps_out)
        super().__init__(irreps_in, gate.irreps_in)
        self.gate = gate

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.gate(super().forward(features))


class EquivariantLayerNorm(torch.nn.Module):
    """Divides the channels of each degree by the root mean square of their components.

    Scalars lose their mean before and get a bias after. Parameters: ``affine_weight``, one per
    channel; ``affine_bias``, one per scalar channel.
    """

    def __init__(self, irreps: o3.Irreps, eps: float = 1e-5) -> None:
        super().__init__()
        self.irreps = o3.Irreps(irreps)
        self.eps = eps
        self.affine_weight = torch.nn.Parameter(torch.ones(self.irreps.num_irreps))
        self.affine_bias = torch.nn.Parameter(torch.zeros(self.irreps.count("0e")))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(N, dim) -> (N, dim)."""
        weights = self.affine_weight.split([mul for mul, _ in self.irreps])
        outputs = []
        for (_, ir), field, weight in zip(
            self.irreps, by_degree(features, self.irreps), weights, strict=True
        ):
            if ir.l == 0:
                field = field - field.mean(dim=1, keepdim=True)
            mean_square = field.square().mean(dim=(1, 2), keepdim=True)
            field = field * (mean_square + self.eps).rsqrt() * weight[:, None]
            if ir.l == 0:
                field = field + self.affine_bias[:, None]
            outputs.append(field)
        return joined(outputs)
