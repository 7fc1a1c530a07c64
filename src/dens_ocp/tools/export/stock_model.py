"""The stock model of a DeNS model: its name, its options, its weights.

Without an encoded force and with sigma = 0, a DeNS model adds the same vector to the l = 0
coefficient of every atom: the bias of the force encoding and of the sigma encoding
(``DeNSModel.predict``). The initial l = 0 coefficient is a row of ``sphere_embedding``, so the
vector added to every row gives the same node embedding. Nothing else of DeNS is used in
evaluation.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from fairchem.core.models.equiformer_v2.equiformer_v2_deprecated import EquiformerV2
from fairchem.core.models.escn.escn import eSCN

from dens_ocp.models.dens_model import DeNSModel
from dens_ocp.models.equiformer_v2 import EquiformerV2DeNS
from dens_ocp.models.escn import eSCNDeNS
from dens_ocp.models.parameter_names import flat_name, is_dens

STOCK_MODELS: dict[type[DeNSModel], tuple[str, type[torch.nn.Module]]] = {
    EquiformerV2DeNS: ("equiformer_v2", EquiformerV2),
    eSCNDeNS: ("escn", eSCN),
}
"""Our class -> name and class of fairchem's flat model."""


def stock_options(cls: type[DeNSModel], options: dict[str, Any]) -> dict[str, Any]:
    """The ``model`` section of the stock model.

    Args:
        cls: our model's class.
        options: its options, without ``name``.

    Returns:
        ``name`` and those options that the stock model has. The others concern DeNS, or how
        gradients are computed (``activation_checkpoint`` of EquiformerV2).
    """
    name, stock = STOCK_MODELS[cls]
    known = inspect.signature(stock.__init__).parameters
    return {"name": name, **{key: value for key, value in options.items() if key in known}}


def constant_embedding(model: DeNSModel) -> torch.Tensor:
    """(C,): what evaluation adds to the l = 0 coefficient of every atom."""
    constant = model.force_embedding.without_forces(1)[0, 0]
    if model.noise_schedule_sigma_embedding is not None:
        constant = constant + model.noise_schedule_sigma_embedding(constant.new_zeros(1))
    return constant.detach()


def stock_state(model: DeNSModel) -> dict[str, torch.Tensor]:
    """The stock model's state dict: no module of DeNS, its embedding folded into the atoms'."""
    state = {
        flat_name(name): value.detach().clone()
        for name, value in model.state_dict().items()
        if not is_dens(name)
    }
    state["sphere_embedding.weight"] += constant_embedding(model)
    return state
