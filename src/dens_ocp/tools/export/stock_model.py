"""The stock model of a DeNS model: its name, its options, its weights; and the config of an
exported checkpoint, also as a YAML file for stock fairchem's command line.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from fairchem.core.models.equiformer_v2.equiformer_v2_deprecated import EquiformerV2
from fairchem.core.models.escn.escn import eSCN
from fairchem.core.models.esen.esen import eSEN_Backbone

from dens_ocp.dens.config import OFFICIAL_KEYS
from dens_ocp.errors import DensError
from dens_ocp.models.checkpoint_states import without_dens
from dens_ocp.models.dens_model import DeNSModel
from dens_ocp.models.equiformer_v2 import EquiformerV2DeNS
from dens_ocp.models.escn import eSCNDeNS
from dens_ocp.models.esen import eSENDeNS
from dens_ocp.models.parameter_names import flat_name
from dens_ocp.settings import defaults


class Stock(NamedTuple):
    """What a model of ours is in fairchem.

    Attributes:
        name: of its backbone, without ``_backbone``.
        options: the class whose constructor has its options.
        flat: there is a flat model of this name, for energy and forces alone.
        energy, forces: modules of the heads in a hydra model.
    """

    name: str
    options: type[torch.nn.Module]
    flat: bool
    energy: str
    forces: str


STOCK_MODELS: dict[type[DeNSModel], Stock] = {
    EquiformerV2DeNS: Stock(
        "equiformer_v2", EquiformerV2, True, "equiformer_v2_energy_head",
        "equiformer_v2_force_head",
    ),
    eSCNDeNS: Stock("escn", eSCN, True, "escn_energy_head", "escn_force_head"),
    eSENDeNS: Stock(
        "esen", eSEN_Backbone, False, "esen_mlp_energy_head", "esen_linear_force_head"
    ),
}  # fmt: skip

_GRADIENT_HEAD = "esen_mlp_efs_head"
"""fairchem's head of the energy that differentiates it too."""

_ORIGINAL_TASK = {"energy": "energy_head.", "forces": "force_head."}
"""Names of heads in a hydra model -> of ours."""

TRAINER = "equiformerv2_forces"
"""The stock trainer that reads schedules as ours does, in epochs; it trains eSCN as well."""

_OUTPUTS = {
    "energy": {"level": "system"},
    "forces": {"level": "atom", "train_on_free_atoms": True, "eval_on_free_atoms": True},
}
_LOSS_FUNCTIONS = [
    {"energy": {"fn": "mae", "coefficient": 2}},
    {"forces": {"fn": "l2mae", "coefficient": 100}},
]
_OPTIM = {
    # fairchem builds optimizer and schedule before it predicts, and fails without these
    "batch_size": 4,
    "eval_batch_size": 4,
    "num_workers": 0,
    "lr_initial": 0.0002,
    "max_epochs": 1,
    "scheduler": "LambdaLR",
    "scheduler_params": {
        "lambda_type": "cosine",
        "warmup_factor": 0.2,
        "warmup_epochs": 0.1,
        "lr_min_factor": 0.01,
    },
}


def stock_options(cls: type[DeNSModel], options: dict[str, Any]) -> dict[str, Any]:
    """The ``model`` section of the stock model.

    Args:
        cls: our model's class.
        options: its options, without ``name``.

    Returns:
        ``name`` and those options that the stock model has. The others concern DeNS, or how
        gradients are computed (``activation_checkpoint`` of EquiformerV2). With outputs beside
        energy and forces (``heads``), which the flat models cannot have, and of eSEN, which has no
        flat model, a hydra model.

    Raises:
        DensError: a head, or energy references with heads, that stock fairchem has not.
    """
    stock = STOCK_MODELS[cls]
    known = inspect.signature(stock.options.__init__).parameters
    kept = {key: value for key, value in options.items() if key in known}
    if _is_flat(stock, options.get("heads")):
        return {"name": stock.name, **kept}
    if options.get("use_energy_lin_ref"):
        raise DensError(
            "model.use_energy_lin_ref: True with model.heads: stock fairchem adds these "
            "references only in models of energy and forces; the checkpoint cannot be exported"
        )
    given = options.get("heads") or {}
    heads = {
        "energy": {"module": stock.energy},
        "forces": {"module": stock.forces},
        **{name: _stock_head(name, each) for name, each in given.items()},
    }
    if not stock.flat:
        kept |= {"otf_graph": True, "direct_forces": True}
    if cls.has_gradient_forces(options):
        del heads["forces"]
        kept["direct_forces"], heads["energy"] = False, {"module": _GRADIENT_HEAD}
    return {
        "name": "hydra",
        "pass_through_head_outputs": True,
        "otf_graph": True,
        "backbone": {"model": f"{stock.name}_backbone", **kept},
        "heads": heads,
    }


def _is_flat(stock: Stock, heads: Any) -> bool:
    return stock.flat and not heads


def _stock_head(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    options = dict(options)
    if options.pop("equivariant", False):
        raise DensError(
            f"model.heads.{name}.equivariant: True: stock fairchem has no such head; use the "
            "checkpoint where dens-ocp is installed (OCPCalculator, fairchem main)"
        )
    return options


def stock_state(model: DeNSModel) -> dict[str, torch.Tensor]:
    """The stock model's state dict: no module of DeNS, its embedding folded into the atoms'."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    rename = flat_name if _is_flat(STOCK_MODELS[type(model)], model.heads) else _hydra_name
    return {rename(name): value for name, value in without_dens(state).items()}


def _hydra_name(name: str) -> str:
    """The name in fairchem's hydra models of a parameter or buffer of ours."""
    for head, prefix in _ORIGINAL_TASK.items():
        if name.startswith(prefix):
            return f"output_heads.{head}.{name.removeprefix(prefix)}"
    return f"output_{name}" if name.startswith("heads.") else f"backbone.{name}"


def stock_config(config: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """What stock fairchem needs of a config to predict, relax and train.

    Args:
        config: of the checkpoint, or of a YAML file; absent sections get defaults.
        model: the stock model's section.

    Returns:
        A config as in a YAML file (``dataset.train`` names format and labels, no path). No option
        of DeNS is left. Normalizers and references are not in it: they come with the checkpoint.
    """
    given = config.get("optim") or {}
    ours = {"dens", *OFFICIAL_KEYS}
    outputs = config.get("outputs") or _OUTPUTS
    metrics = defaults.evaluation_metrics(config.get("evaluation_metrics"), outputs)
    section = training_section(config.get("dataset"))
    form = section.get("format") or "lmdb"
    labels = {
        "format": "lmdb" if form == "dens_lmdb" else form,
        "key_mapping": section.get("key_mapping") or dict(defaults.KEY_MAPPING),
        **({"a2g_args": section["a2g_args"]} if section.get("a2g_args") else {}),
    }
    parts = (section.get("transforms") or {}).get("decompose_tensor")
    if parts:
        labels["transforms"] = {"decompose_tensor": parts}
    made = {
        "trainer": TRAINER,
        "model": model,
        "dataset": {"train": labels},
        "outputs": outputs,
        "loss_functions": config.get("loss_functions") or _LOSS_FUNCTIONS,
        "evaluation_metrics": metrics,
        "task": config.get("task") or {},
        "optim": {**_OPTIM, **{name: given[name] for name in given if name not in ours}},
        "logger": config.get("logger") or "tensorboard",
    }
    return copy.deepcopy(made)


def training_section(dataset: dict[str, Any] | list[Any] | None) -> dict[str, Any]:
    """The settings of the training set.

    Args:
        dataset: the ``dataset`` section of a YAML file (by split, or an old one's list), or of a
            checkpoint, which is the training set's itself.
    """
    dataset = dataset or {}
    if isinstance(dataset, list):
        return dataset[0] if dataset else {}
    return (dataset.get("train") or {}) if "train" in dataset else dataset


def checkpoint_config(config: dict[str, Any]) -> dict[str, Any]:
    """The same as fairchem keeps it in a checkpoint: ``dataset`` is the training set's section.

    ``OCPCalculator`` deletes ``dataset.src`` and fails when it is not there.
    """
    return {**config, "dataset": {"src": "", **config["dataset"]["train"]}, "amp": False}
