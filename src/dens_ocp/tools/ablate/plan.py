"""An ablation plan: typed, read from YAML."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Union

import yaml
from fairchem.core.common.utils import merge_dicts
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dens_ocp.dens.config import parse_dens_config
from dens_ocp.errors import DensError, nearest
from dens_ocp.registration import TRAINER_NAMES
from dens_ocp.settings import config_file
from dens_ocp.settings.run import checked
from dens_ocp.training.trainer import DOTTED_NAME

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.]*$"
_SURE = 0.85
"""From this likeness on an unknown setting is taken for a misspelt one."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(_Part):
    """A training config and what the finished models are scored on."""

    config: str = Field(description="training config; relative to the plan's file")
    score: dict[str, Union[str, dict[str, Any]]] = Field(  # noqa: UP007 (pydantic, Python 3.10)
        default_factory=dict,
        description="S2EF data sets by name, paths or sections; several are averaged. Default: the "
        "config's evaluation.s2ef, else its dataset.test, else dataset.val",
    )


class Variant(_Part):
    """What is different."""

    title: str | None = Field(default=None, description="in tables; default: the variant's name")
    set: dict[str, Any] = Field(
        default_factory=dict, description="settings of the config: optim.dens.p: 0.25"
    )


class Plan(_Part):
    """Variants x seeds (x bases), a training run each.

    Raises:
        DensError: through :func:`read_plan`.
    """

    title: str = Field(default="", description="of the table")
    base: Union[str, dict[str, Union[str, Base]]] = Field(  # noqa: UP007
        description="training config; or several by name, molecules for example"
    )
    variants: dict[str, Variant] = Field(min_length=1, description="what is compared, in order")
    baseline: str = Field(description="the variant that the others are compared with")
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1, description="--seed of each run")
    score: dict[str, Union[str, dict[str, Any]]] = Field(  # noqa: UP007
        default_factory=dict, description="as of a base, for all of them"
    )
    set: dict[str, Any] = Field(default_factory=dict, description="settings of all runs")
    checkpoint: Literal["best", "last"] = Field(
        default="best",
        description="what is scored: the best one in validation, or the last of the training",
    )

    @property
    def bases(self) -> dict[str, Base]:
        """By name; a single one has the name ``""``."""
        if isinstance(self.base, str):
            return {"": Base(config=self.base, score=self.score)}
        found = {}
        for name, base in self.base.items():
            base = Base(config=base) if isinstance(base, str) else base
            found[name] = base if base.score else base.model_copy(update={"score": self.score})
        return found


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        DensError: no such file, not YAML, an unknown or missing key, a name that cannot be a
            folder's, a baseline that is no variant.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DensError(f"plan: {path} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise DensError(f"plan: {path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise DensError(f"plan: {path} has no settings; start with a plan in configs/ablations/")
    _check_keys(content, Plan, str(path), "")
    variants = content.get("variants")
    if isinstance(variants, dict):
        content["variants"] = {name: {} if v is None else v for name, v in variants.items()}
        for name, variant in content["variants"].items():
            _check_keys(variant, Variant, str(path), f"variants.{name}.")
    try:
        plan = Plan.model_validate(content)
    except ValidationError as error:
        raise DensError(f"{path}: " + "; ".join(_reports(error))) from None
    _check_names(plan, path)
    return plan


def _reports(error: ValidationError) -> list[str]:
    reports = {}
    for entry in error.errors():
        loc = [str(part) for part in entry["loc"] if not str(part).startswith(("dict[", "str"))]
        name = ".".join(loc)
        reports.setdefault(name, f"{name} is not valid: {entry['msg'].lower()}")
    return list(reports.values())


def _check_keys(block: Any, model: type[BaseModel], path: str, where: str) -> None:
    if not isinstance(block, Mapping):
        raise DensError(f"{path}: {where.rstrip('.')}: {block!r} is not a block of settings")
    for key in block:
        if key not in model.model_fields:
            raise DensError(
                f"{path}: unknown key {where}{key}{nearest(key, model.model_fields)} (known: "
                f"{', '.join(model.model_fields)})"
            )


def _check_names(plan: Plan, path: Path) -> None:
    for name in [*plan.variants, *(name for name in plan.bases if name)]:
        if not re.match(_NAME, name):
            raise DensError(
                f"{path}: {name!r} cannot be a name: letters, digits, _ and . only (give the "
                "variant a title: for tables)"
            )
    if plan.baseline not in plan.variants:
        raise DensError(
            f"{path}: baseline {plan.baseline!r} is no variant"
            f"{nearest(plan.baseline, plan.variants)} (variants: {', '.join(plan.variants)})"
        )
    if len(set(plan.seeds)) < len(plan.seeds):
        raise DensError(f"{path}: seeds {plan.seeds}: one is there twice")


def config_of(plan: Plan, folder: Path, base: str, variant: str) -> dict[str, Any]:
    """The whole training config of a run, without seed.

    Args:
        plan: the plan. folder: of the plan's file. base, variant: names.

    Raises:
        DensError: a config that is missing; a setting that is nearly the name of one that is there;
            DeNS options that are not valid.
    """
    path = folder / plan.bases[base].config
    config = config_file.read(path, "base")
    for where, settings in (("set", plan.set), (f"variants.{variant}.set",
                                                plan.variants[variant].set)):  # fmt: skip
        nested = _nested(settings)
        _check_settings(config, nested, where)
        config, _ = merge_dicts(config, nested)
    if not isinstance(config.get("optim"), dict):
        raise DensError(f"base: {path} has no section optim; give a training config")
    try:
        if config.get("trainer") in (*TRAINER_NAMES, DOTTED_NAME):
            checked(config)
        parse_dens_config(config["optim"])
    except DensError as error:
        raise DensError(f"variant {variant}: {error}") from None
    return config


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``{"a.b": 1}`` and ``{"a": {"b": 1}}`` are the same."""
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        value = _nested(value) if isinstance(value, Mapping) else value
        for part in reversed(str(key).split(".")):
            value = {part: value}
        nested, _ = merge_dicts(nested, value)
    return nested


def _check_settings(config: Any, settings: Mapping[str, Any], where: str) -> None:
    """A setting that is not in the config, but nearly: misspelt. (Others have defaults.)"""
    if not isinstance(config, Mapping):
        return
    for key, value in settings.items():
        if key in config:
            if isinstance(value, Mapping):
                _check_settings(config[key], value, f"{where}.{key}")
            continue
        close = difflib.get_close_matches(key, [str(each) for each in config], 1, _SURE)
        if close:
            raise DensError(
                f"{where}.{key}: the config has no such setting, did you mean {close[0]!r}?"
            )


def score_of(plan: Plan, base: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The data sets that finished models are scored on, by split.

    Args:
        base: its name. config: of one of its runs.

    Raises:
        DensError: there is none.
    """
    given = plan.bases[base].score or (config.get("evaluation") or {}).get("s2ef") or {}
    if given:
        return dict(given)
    sections = config.get("dataset") or {}
    for split in ("test", "val"):
        if (sections.get(split) or {}).get("src"):
            return {split: sections[split]["src"]}
    raise DensError(
        "score: the plan names no data set to score on, and the config has no dataset.test "
        "and no dataset.val; write for example score: {test: data/test}"
    )
