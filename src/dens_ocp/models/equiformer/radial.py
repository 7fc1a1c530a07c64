"""Functions of the distance that give the weights of tensor products."""

from __future__ import annotations

import torch


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
