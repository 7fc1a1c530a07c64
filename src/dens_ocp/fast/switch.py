"""Turns parts of a backbone into their fast forms, in place."""

from __future__ import annotations

import torch
from fairchem.core.models.equiformer_v2.activation import S2Activation, SeparableS2Activation

from dens_ocp.fast.s2_activation import BlockedS2Activation, BlockedSeparableS2Activation

FORMS = {
    SeparableS2Activation: BlockedSeparableS2Activation,
    S2Activation: BlockedS2Activation,
}


def make_fast(model: torch.nn.Module) -> None:
    """Give modules their fast classes. Parameters, buffers and their names stay what they are."""
    for module in model.modules():
        if type(module) in FORMS:
            module.__class__ = FORMS[type(module)]
