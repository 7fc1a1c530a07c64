"""Reads what is exported: a DeNS checkpoint as a model, and what belongs to its predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairchem.core.common.registry import registry
from fairchem.core.modules.normalization.element_references import (
    create_element_references,
    load_references_from_config,
)
from fairchem.core.modules.normalization.normalizer import (
    create_normalizer,
    load_normalizers_from_config,
)

from dens_ocp.checkpoints import checkpoint_files
from dens_ocp.errors import DensError, nearest
from dens_ocp.models.checkpoint_states import averaged, fit
from dens_ocp.models.denoising_model import DenoisingModel
from dens_ocp.models.dens_model import DeNSModel
from dens_ocp.models.parameter_names import is_dens, translated
from dens_ocp.registration import MODEL_NAMES
from dens_ocp.settings import config_file, oc22_references
from dens_ocp.tools.export.stock_model import STOCK_MODELS, training_section

_OLD_TARGETS = {"target": "energy", "grad_target": "forces"}
"""Names of normalizers in old checkpoints (fairchem's ``load_checkpoint`` reads them as well)."""


@dataclass(frozen=True)
class Source:
    """Attributes:
    model: with the weights that are exported, in evaluation mode.
    options: its ``model`` section without ``name``.
    config: sections of the config file, else of the checkpoint.
    normalizers, references: state dicts, by target.
    weights: which ones ``model`` has, in words.
    step: of the training run, or None.
    """

    model: DeNSModel
    options: dict[str, Any]
    config: dict[str, Any]
    normalizers: dict[str, dict[str, torch.Tensor]]
    references: dict[str, dict[str, torch.Tensor]]
    weights: str
    step: int | None


def read_source(path: Path, config_yml: Path | None = None, raw: bool = False) -> Source:
    """Read a checkpoint of ours or the authors'.

    Args:
        path: ``checkpoint.pt`` or ``best_checkpoint.pt``.
        config_yml: its sections come before the checkpoint's; normalizers and element references
            of its ``dataset.train.transforms`` are taken where the checkpoint has none, as in
            evaluation.
        raw: the last step's weights and not the averaged ones (EMA).

    Raises:
        DensError: no such file, no checkpoint, no DeNS checkpoint, an unknown or another model.
    """
    checkpoint = checkpoint_files.read(path, torch.device("cpu"))
    state_dict = checkpoint["state_dict"]
    given = {} if config_yml is None else config_file.read(config_yml, "--config-yml")
    config = {**(checkpoint.get("config") or {}), **given}
    plain = not any(is_dens(translated(name)) for name in state_dict)
    if plain and _has_noise_head(config):
        raise DensError(
            f"{path} has no force encoding and no noise head, so it is not a DeNS checkpoint; if "
            "it is a checkpoint of stock fairchem already, it needs no export"
        )
    options = _model_section(config, path)
    name = options.pop("name")
    # fairchem's own path: the exported model is compared with it, in float32
    model = _model_class(name, path)(**{**options, "fast": False})
    state = fit(model, state_dict, str(path))
    missing = [each for each in state.initialised if not each.startswith("noise_head.")]
    if missing:
        raise DensError(
            f"{path} has no {missing[0]}, which model.name: {name} needs in evaluation; give the "
            "`model` section that the checkpoint was trained with (--config-yml)"
        )
    ema = checkpoint.get("ema")
    if not raw:
        state = averaged(model, state, ema)
    model.load_state_dict(state.state_dict)
    normalizers, references = _normalizers_and_references(checkpoint, given)
    return Source(
        model=model.eval(),
        options=options,
        config=config,
        normalizers=normalizers,
        references=references,
        weights="as stored" if not ema else "last step's" if raw else "averaged (EMA)",
        step=checkpoint.get("step"),
    )


def _has_noise_head(config: dict[str, Any]) -> bool:
    """Whether the config's model has one, as far as it says."""
    model = config.get("model")
    return not isinstance(model, dict) or model.get("use_noise_head", True) is not False


def _model_section(config: dict[str, Any], path: Path) -> dict[str, Any]:
    model = config.get("model")
    if isinstance(model, str):  # the authors' and old fairchem's checkpoints
        model = {"name": model, **(config.get("model_attributes") or {})}
    if not model or "name" not in model:
        raise DensError(
            f"{path} has no `model` section; give the config it was trained with: --config-yml FILE"
        )
    return dict(model)


def _model_class(name: str, path: Path) -> type[DeNSModel]:
    try:
        cls = registry.get_model_class(name)
    except RuntimeError:  # fairchem's, for a name it does not know
        cls = object
    if cls in STOCK_MODELS:
        return cls
    if issubclass(cls, DenoisingModel):
        raise DensError(
            f"{path}: model.name: {name}: fairchem has no model of this kind, so there is nothing "
            "to export it to; use the checkpoint where dens-ocp is installed (OCPCalculator, "
            "fairchem main)"
        )
    known = MODEL_NAMES[: len(STOCK_MODELS)]
    raise DensError(
        f"{path}: model.name: {name} is not a DeNS model of this package{nearest(name, known)} "
        f"(known: {', '.join(known)}); give a config with the right `model` section: --config-yml "
        "FILE"
    )


def _normalizers_and_references(
    checkpoint: dict[str, Any], given: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    section = oc22_references.with_linear_references(training_section(given.get("dataset")))
    transforms = section.get("transforms") or {}
    normalizers = _from_config(load_normalizers_from_config, transforms.get("normalizer"))
    references = _from_config(load_references_from_config, transforms.get("element_references"))
    for target, state in checkpoint["normalizers"].items():
        normalizers[_OLD_TARGETS.get(target, target)] = create_normalizer(state_dict=state)
    for target, state in (checkpoint.get("elementrefs") or {}).items():
        references[target] = create_element_references(state_dict=state)
    return (
        {target: module.state_dict() for target, module in normalizers.items()},
        {target: module.state_dict() for target, module in references.items()},
    )


def _from_config(load: Any, config: dict[str, Any] | None) -> dict[str, torch.nn.Module]:
    """fairchem's modules of a config; what it would fit to the training set is left out."""
    config = {name: value for name, value in (config or {}).items() if name != "fit"}
    try:
        return dict(load(config, dataset=None)) if config else {}
    except OSError as error:
        raise DensError(
            f"--config-yml: dataset.train.transforms names a file that cannot be read: {error}"
        ) from None
