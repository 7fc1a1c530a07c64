"""What a fast form of a module is, and where it takes the place of the stock one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from fairchem.core.models.equiformer_v2.equiformer_v2 import EquiformerV2Backbone


class FastForm:
    """First base of a class that computes what its second base does, faster.

    Parameters, buffers and their names are those of the second base, the *stock* class, so a
    module changes from one to the other by its ``__class__``.
    """

    @classmethod
    def stock(cls) -> type[torch.nn.Module]:
        """The class whose place it takes."""
        bases = (base for base in cls.__mro__ if issubclass(base, torch.nn.Module))
        return next(base for base in bases if not issubclass(base, FastForm))

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        """Whether a module of the stock class is to become one.

        Args:
            model: the whole.
            name: the module's in ``model``: blocks of heads are known by it.
            module: of the stock class.
        """
        return True


class EquiformerV2Form(FastForm):
    """A form that only EquiformerV2 has, and with S2 activation alone: with gate activation it
    keeps fairchem's attention."""

    @classmethod
    def fits(cls, model: torch.nn.Module, name: str, module: torch.nn.Module) -> bool:
        return isinstance(model, EquiformerV2Backbone) and not model.use_gate_act


class _WithZeroGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, out: torch.Tensor, *unused: torch.Tensor) -> torch.Tensor:
        ctx.unused = [(each.shape, each.dtype, each.device) for each in unused]
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        zeros = (torch.zeros(s, dtype=dtype, device=device) for s, dtype, device in ctx.unused)
        return gradient, *zeros


def with_zero_gradients(out: torch.Tensor, unused: Sequence[torch.Tensor]) -> torch.Tensor:
    """``out``, whose gradient with respect to ``unused`` is zero rather than none: AdamW decays
    such parameters, and DDP waits for them."""
    return _WithZeroGradients.apply(out, *unused)
