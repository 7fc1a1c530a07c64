"""``dens-ocp options``: the options of a config's sections, read from the code that checks them.

The tables of docs/options.md come from here too.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click
import yaml

from dens_ocp.dens.options import Section, choice
from dens_ocp.errors import DensError

SECTIONS = {
    "optim.dens": ("dens_ocp.dens.config:DeNSConfig", "DeNS"),
    "optim.dens.sigma": ("dens_ocp.dens.config:MultiScaleSigma", "multi-scale noise"),
    "model": ("dens_ocp.models.dens_model:DeNSModel", "what the models have in common"),
    "model.equiformer_v2_dens": (
        "dens_ocp.models.equiformer_v2:EquiformerV2DeNS", "EquiformerV2",
    ),
    "model.escn_dens": ("dens_ocp.models.escn:eSCNDeNS", "eSCN"),
    "model.esen_dens": ("dens_ocp.models.esen:eSENDeNS", "eSEN"),
    "model.equiformer_dens": (
        "dens_ocp.models.equiformer.options:EquiformerOptions", "Equiformer (MD17)",
    ),
    "dataset": ("dens_ocp.settings.sections.dataset:DataSet", "data sets"),
    "dataset.md": ("dens_ocp.data.md_flags:MdOptions", "which records come from MD"),
    "optim": ("dens_ocp.settings.sections.optim:Optim", "training"),
    "optim.scheduler_params": (
        "dens_ocp.settings.sections.optim:LambdaSchedule", "the learning rate's schedule",
    ),
    "outputs": ("dens_ocp.settings.sections.targets:Output", "what is predicted"),
    "loss_functions": ("dens_ocp.settings.sections.targets:Loss", "what is trained on"),
    "evaluation_metrics": ("dens_ocp.settings.sections.targets:Metrics", "what is measured"),
    "task": ("dens_ocp.settings.sections.task:Task", "checkpoints and relaxations"),
    "task.relax_opt": ("dens_ocp.settings.sections.task:RelaxOptions", "fairchem's L-BFGS"),
    "logger": ("dens_ocp.settings.sections.task:Logger", "logging"),
    "evaluation": (
        "dens_ocp.results.pipeline.options:EvaluationSection", "dens-ocp evaluate",
    ),
    "evaluation.relaxation": (
        "dens_ocp.relaxation.cell_relaxation:CellRelaxation", "relaxation of cells",
    ),
}  # fmt: skip
"""Sections by name: the class that reads one, and its subject."""


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: as in a config.
        default: as YAML, or an empty string where fairchem-core decides or a value is needed.
        meaning: a phrase or some sentences, with the unit.
    """

    name: str
    default: str
    meaning: str


def of(section: str) -> list[Option]:
    """The options of a section of :data:`SECTIONS`, in the order of the code.

    Raises:
        DensError: there is no such section; with the nearest.
    """
    try:
        place, _ = SECTIONS[choice(section, SECTIONS)]
    except ValueError as error:
        raise DensError(f"SECTION: {section!r} {error}") from None
    module, _, name = place.partition(":")
    reads = getattr(importlib.import_module(module), name)
    return of_fields(reads) if issubclass(reads, Section) else of_arguments(reads)


def of_fields(model: type[Section]) -> list[Option]:
    """The options of a block of a config."""
    return [
        Option(
            name,
            _yaml(field.default) if model.defaults_hold and not field.is_required() else "",
            field.description or "",
        )
        for name, field in model.model_fields.items()
    ]


def of_arguments(function: Callable[..., Any]) -> list[Option]:
    """The arguments of a class or function, as the docstrings of it and its bases describe them."""
    from dens_ocp.settings.sections.signatures import parameters

    described: dict[str, str] = {}
    for each in reversed(inspect.getmro(function) if inspect.isclass(function) else [function]):
        for documented in (each, each.__dict__.get("__init__")):
            described |= _arguments_in(inspect.getdoc(documented) or "")
    return [
        Option(
            name,
            "" if parameter.default is parameter.empty else _yaml(parameter.default),
            described.get(name, ""),
        )
        for name, parameter in parameters(function).items()
    ]


_ARGUMENT = re.compile(r"^( *)(\w+(?:, \w+)*)(?: \([^)]*\))?:\s*(.*)$")


def _arguments_in(docstring: str) -> dict[str, str]:
    """Descriptions by name in the block ``Args:`` of a docstring."""
    lines = docstring.partition("Args:\n")[2].split("\n")
    found: dict[str, str] = {}
    names: list[str] = []
    indent = None
    for line in lines:
        match = _ARGUMENT.match(line)
        if line.strip() and not line.startswith(" "):
            break  # the next block
        if match and (indent is None or len(match[1]) <= indent):
            indent, names = len(match[1]), match[2].split(", ")
            found |= dict.fromkeys(names, match[3])
        elif line.strip() and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return {name: re.sub(r":\w+:`~?[\w.]*?(\w+)`", r"``\1``", text) for name, text in found.items()}


def _yaml(value: Any) -> str:
    if callable(value) or not isinstance(
        value, (str, int, float, bool, list, dict, tuple, type(None))
    ):
        return ""
    plain = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


@click.command(
    epilog="\b\nexamples:\n"
    "  dens-ocp options optim.dens\n"
    "  dens-ocp options model.equiformer_v2_dens"
)
@click.argument("section", required=False)
def command(section: str | None) -> None:
    """Print the options of a section of a config, with defaults and meaning.

    SECTION: one of those that the command lists without it.
    """
    from tabulate import tabulate

    if section is None:
        width = max(map(len, SECTIONS))
        for name, (_, subject) in SECTIONS.items():
            click.echo(f"{name:<{width}}  {subject}")
        return
    rows = [(each.name, each.default, each.meaning.replace("``", "")) for each in of(section)]
    click.echo(tabulate(rows, ("option", "default", "meaning"), maxcolwidths=[None, 24, 60]))
