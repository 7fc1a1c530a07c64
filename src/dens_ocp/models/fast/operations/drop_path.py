"""Stochastic depth without waiting for the device."""

from __future__ import annotations

import torch
from fairchem.core.common import gp_utils
from fairchem.core.models.equiformer_v2.drop import GraphDropPath

from dens_ocp.models.fast.form import FastForm
from dens_ocp.models.fast.operations.launches import few_launches


class FewLaunchesDropPath(FastForm, GraphDropPath):
    """fairchem's ``GraphDropPath``, which asks the device for the number of structures.

    In few launches a random number is drawn for each atom, and an atom takes that of the atom whose
    number its structure has: one each, as there are at least as many atoms as structures. Under
    graph parallelism a rank has a part of the atoms, which may be fewer: there it is fairchem's.
    """

    def forward(self, x: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        if not few_launches(x.device) or gp_utils.initialized():
            return super().forward(x, batch)
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1.0 - self.drop_prob
        drawn = x.new_empty(len(x), *(1,) * (x.dim() - 1)).bernoulli_(keep).div_(keep)
        return x * drawn.index_select(0, batch)
