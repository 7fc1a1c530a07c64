"""``outputs``, ``loss_functions`` and ``evaluation_metrics``: what is predicted, trained on and
measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from dens_ocp.dens.options import FairchemSection, chosen, is_missing, mapping, need, one_of, read
from dens_ocp.errors import DensError, nearest
from dens_ocp.settings import best_metric
from dens_ocp.settings.best_metric import METRICS
from dens_ocp.settings.defaults import metric_names
from dens_ocp.settings.sections.values import Flag, Number, Whole, registered

_LEVELS = {"energy": "system", "forces": "atom"}


class Output(FairchemSection):
    """``outputs.<target>`` and its ``decomposition.<target>``."""

    level: one_of("system", "atom") = Field(
        "system", description="what the output belongs to: system or atom"
    )
    property: str = Field(
        "", description="name of the output in the model's head, if it is different"
    )
    train_on_free_atoms: Flag = Field(True, description="count only free atoms in the loss")
    eval_on_free_atoms: Flag = Field(True, description="count only free atoms in the metrics")
    prediction_dtype: one_of("float16", "float32") = Field(
        "float16",
        description="number format of the output in prediction files; float32 if this option or "
        "task.prediction_dtype says so",
    )
    irrep_dim: Whole = Field(
        0, ge=0, description="degree of a part of a decomposed tensor: 0 isotropic, 2 anisotropic"
    )
    shape: Whole = Field(1, ge=1, description="known from published configs; without effect")
    decomposition: Any = Field(
        None,
        description="parts of a tensor and their options, for example {stress_isotropic: "
        "{irrep_dim: 0}, stress_anisotropic: {irrep_dim: 2}}",
    )
    parent: str = Field(
        "", description="name of the whole tensor that a part belongs to (fairchem-core sets it)"
    )


class Loss(FairchemSection):
    """``loss_functions.<target>``."""

    fn: str = Field(
        "mae",
        examples=["mae"],
        description="loss function: mae, mse, l2mae (length of the error vector of each atom), "
        "l2norm (the same), per_atom_mae, or the full name of a class",
    )
    coefficient: Number = Field(1, ge=0, examples=[100], description="weight of the loss")
    reduction: one_of("mean", "sum") = Field(
        "mean", description="how the errors of a batch become one number: mean or sum"
    )


class Metrics(FairchemSection):
    """``evaluation_metrics``."""

    metrics: Any = Field(
        None,
        description="metrics of each output, for example {energy: [mae], forces: [mae, "
        "cosine_similarity]} (default: fairchem-core's S2EF metrics)",
    )
    primary_metric: str = Field(
        "",
        description="metric that decides which checkpoint is the best (default: forces_mae, else "
        "energy_mae, else the first)",
    )


def outputs(block: Any, where: str = "outputs") -> dict[str, dict[str, Any]]:
    """The section, typed; ``level`` of energy and forces is filled in.

    Raises:
        DensError: an unknown name or value; a level that is missing.
    """
    result = {}
    for target, options in mapping(block, where, "{energy: {level: system}}").items():
        inside = f"{where}.{target}"
        output = result[target] = read(Output, options, inside, example="{level: system}")
        if "decomposition" in output:
            parts = mapping(output["decomposition"], f"{inside}.decomposition")
            output["decomposition"] = {
                name: read(Output, part, f"{inside}.decomposition.{name}")
                for name, part in parts.items()
            }
        if "level" not in output:
            if target not in _LEVELS:
                raise DensError(f"{inside}.level is missing; write system or atom")
            output["level"] = _LEVELS[target]
    return result


def names(outputs: Mapping[str, Any]) -> list[str]:
    """All targets, parts of a decomposition included."""
    parts = [part for each in outputs.values() for part in each.get("decomposition") or ()]
    return [*outputs, *parts]


def losses(block: Any, where: str = "loss_functions") -> list[dict[str, Any]]:
    """The section, typed: a list of single losses, as which a mapping is read too.

    Raises:
        DensError: an unknown name or value; a loss or coefficient that is missing.
    """
    if is_missing(block):
        return []
    example = "[{energy: {fn: mae, coefficient: 2}}, {forces: {fn: l2mae, coefficient: 100}}]"
    if isinstance(block, Mapping):
        block = [{target: options} for target, options in block.items()]
    if not isinstance(block, (list, tuple)):
        raise DensError(f"{where}: {block!r} is not a list of losses; write for example {example}")
    result = []
    for entry in block:
        entry = mapping(entry, where, example)
        result.append({target: _loss(each, f"{where}.{target}") for target, each in entry.items()})
    return result


def _loss(options: Any, where: str) -> dict[str, Any]:
    loss = read(Loss, options, where, example="{fn: mae, coefficient: 2}")
    need(loss, ("fn", "coefficient"), Loss, where)
    if "." not in loss["fn"]:
        loss["fn"] = chosen(loss["fn"], registered("loss", loss["fn"]), f"{where}.fn")
    return loss


def metrics(block: Any, where: str = "evaluation_metrics") -> dict[str, Any]:
    """The section, typed; one name is a list of one.

    Raises:
        DensError: an unknown name or metric.
    """
    section = read(Metrics, block, where, example="{metrics: {forces: [mae]}}")
    if "metrics" not in section:
        return section
    inside = f"{where}.metrics"
    result: dict[str, list[str]] = {}
    for target, functions in mapping(section["metrics"], inside, "{forces: [mae]}").items():
        functions = [functions] if isinstance(functions, str) else functions
        if is_missing(functions):
            continue
        if not isinstance(functions, (list, tuple)):
            raise DensError(f"{inside}.{target}: {functions!r} is not a list of metrics")
        result[target] = [chosen(each, METRICS, f"{inside}.{target}") for each in functions]
    section["metrics"] = result
    if result and "primary_metric" in section:
        best_metric.check(section["primary_metric"], metric_names(result), where)
    return section


def check_together(config: Mapping[str, Any]) -> None:
    """Targets of losses, metrics and normalizers are outputs.

    fairchem says nothing of a normalizer that no output has.

    Args:
        config: ``outputs`` and the sections above, checked.

    Raises:
        DensError: one has a name that no output has and is like that of an output; for a loss, any.
    """
    known = names(config.get("outputs") or {})
    if not known:
        return
    for loss in config.get("loss_functions") or ():
        for target in loss:
            _check_target(target, known, f"loss_functions.{target}", always=True)
    for target in (config.get("evaluation_metrics") or {}).get("metrics") or ():
        if target != "misc":
            _check_target(target, known, f"evaluation_metrics.metrics.{target}")
    dataset = config.get("dataset") or {}
    train = dataset[0] if isinstance(dataset, list) and dataset else dataset
    train = train.get("train") or {} if isinstance(dataset, Mapping) else train
    transforms = (train or {}).get("transforms") or {}
    for kind in ("normalizer", "element_references"):
        block = transforms.get(kind) or {}
        where = f"dataset.train.transforms.{kind}"
        for target in block:
            if target not in ("fit", "file"):
                _check_target(target, known, f"{where}.{target}")
        for target in (block.get("fit") or {}).get("targets") or ():
            _check_target(target, known, f"{where}.fit.targets.{target}")


def _check_target(target: str, known: list[str], where: str, always: bool = False) -> None:
    if target in known:
        return
    near = nearest(target, known)
    if near or always:
        rest = near or f"; the outputs are {', '.join(known)}"
        raise DensError(f"{where}: {target!r} is not one of outputs{rest}")
