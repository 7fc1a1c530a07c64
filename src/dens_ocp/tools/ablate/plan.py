"""An ablation plan: typed, read from YAML, and the configs of its runs."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from fairchem.core.common.utils import merge_dicts
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)  # fmt: skip

from dens_ocp.dens.config import parse_dens_config
from dens_ocp.errors import DensError, nearest
from dens_ocp.registration import TRAINER_NAMES
from dens_ocp.settings import config_file
from dens_ocp.settings.run import checked
from dens_ocp.training.trainer import DOTTED_NAME

_SURE = 0.85
"""From this likeness on an unknown setting is taken for a misspelt one."""


def _name(name: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9_.]*)?", name):
        raise ValueError(
            f"{name!r} cannot be a name; use only letters, digits, _ and . (a variant can have a "
            "title: for tables)"
        )
    return name


def _by_name(bases: Any) -> Any:
    """A single config has the name ``""``."""
    named = bases if isinstance(bases, Mapping) else {"": bases}
    return {key: {"config": base} if isinstance(base, str) else base for key, base in named.items()}


def _no_changes(variants: Any) -> Any:
    """A variant of which nothing is said is the base itself."""
    if not isinstance(variants, Mapping):
        return variants
    return {name: {} if each is None else each for name, each in variants.items()}


_Name = Annotated[str, AfterValidator(_name)]
Score = dict[str, Union[str, dict[str, Any]]]
"""S2EF data sets by name, paths or sections; several are averaged."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Base(_Part):
    """A training config and what the finished models are scored on.

    Attributes:
        config: training config; relative to the plan's file.
        score: default: the plan's, else the config's evaluation.s2ef, else its dataset.test, else
            dataset.val.
        set: settings of the runs on this base.
        at: where it stands on the axis of the plan's curve: 40 epochs, 500 structures.
    """

    config: str
    score: Score = {}
    set: dict[str, Any] = {}
    at: float | None = Field(default=None, gt=0)


class Variant(_Part):
    """What is different.

    Attributes:
        title: in tables; default: the variant's name.
        set: settings of the config, ``optim.dens.p: 0.25``.
    """

    title: str | None = None
    set: dict[str, Any] = {}


class Plan(_Part):
    """Variants x seeds (x bases), a training run each.

    Attributes:
        title: of the table.
        bases: a training config, or several by name, molecules for example.
        variants: what is compared, in order.
        baseline: the variant that the others are compared with.
        seeds: ``--seed`` of each run.
        score: as of a base, for all of them.
        set: settings of all runs.
        checkpoint: what is scored: the best one in validation, or the last of the training.
        curve: what the bases differ in, in words ("epochs"); each of them then says ``at``, and
            the errors are drawn against it and against the cost of training.
    """

    title: str = ""
    bases: Annotated[dict[_Name, Base], BeforeValidator(_by_name)] = Field(alias="base")
    variants: Annotated[dict[_Name, Variant], BeforeValidator(_no_changes)] = Field(min_length=1)
    baseline: str
    seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    score: Score = {}
    set: dict[str, Any] = {}
    checkpoint: Literal["best", "last"] = "best"
    curve: str = ""

    @model_validator(mode="after")
    def _checked(self) -> Plan:
        if self.baseline not in self.variants:
            raise ValueError(
                f"baseline {self.baseline!r} is not a "
                f"variant{nearest(self.baseline, self.variants)} (variants: "
                f"{', '.join(self.variants)})"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: a seed is given twice")
        places = [base.at for base in self.bases.values()]
        if self.curve and (None in places or len({*places}) < max(2, len(places))):
            raise ValueError(
                f"curve: {self.curve}: give at least two bases, each with its own value of `at` "
                "for this axis; write for example base: {short: {config: a.yml, at: 40, set: "
                "{optim.max_epochs: 40}}, long: {config: a.yml, at: 80, set: {optim.max_epochs: "
                "80}}}"
            )
        if not self.curve and any(place is not None for place in places):
            raise ValueError(
                "base: at is given, but the plan has no curve; add for example curve: epochs"
            )
        return self


def read_plan(path: Path) -> Plan:
    """Read and check a plan.

    Raises:
        DensError: no such file, not YAML, an unknown or missing key, a name that cannot be a
            folder's, a baseline that is no variant.
    """
    content = config_file.read(path, "plan")
    try:
        return Plan.model_validate(content)
    except ValidationError as error:
        raise DensError(f"{path}: " + "; ".join(_reports(error))) from None


def _reports(error: ValidationError) -> list[str]:
    reports = {}
    for entry in error.errors():
        loc = [str(part) for part in entry["loc"] if not re.match(r"dict\[|str$", str(part))]
        name = ".".join(loc)
        if entry["type"] == "extra_forbidden":
            model = {"variants": Variant, "base": Base}.get(loc[0] if loc[1:] else "", Plan)
            known = [field.alias or key for key, field in model.model_fields.items()]
            text = f"unknown key {name}{nearest(loc[-1], known)} (known: {', '.join(known)})"
        elif entry["type"] == "value_error":
            text = entry["msg"].removeprefix("Value error, ")
        else:
            text = f"{name} is not valid: {entry['msg'].lower()}"
        reports.setdefault(name, text)
    return list(reports.values())


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
    for where, settings in (
        ("set", plan.set),
        (f"base.{base}.set", plan.bases[base].set),
        (f"variants.{variant}.set", plan.variants[variant].set),
    ):
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


def score_of(plan: Plan, base: str, config: Mapping[str, Any]) -> Score:
    """The data sets that finished models are scored on, by split.

    Args:
        base: its name. config: of one of its runs.

    Raises:
        DensError: there is none.
    """
    evaluated = (config.get("evaluation") or {}).get("s2ef")
    if given := plan.bases[base].score or plan.score or evaluated:
        return dict(given)
    sections = config.get("dataset") or {}
    for split in ("test", "val"):
        if (sections.get(split) or {}).get("src"):
            return {split: sections[split]["src"]}
    raise DensError(
        "score: the plan names no data set to score on, and the config has neither dataset.test "
        "nor dataset.val; add for example score: {test: data/test}"
    )
