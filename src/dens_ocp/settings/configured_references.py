"""Normalizers and element references that a config names, without a training set.

fairchem reads them from the section of the training set only. Where that is switched off
(``--dataset.train=None``), and in ``OCPCalculator``, it takes what the checkpoint holds and leaves
out the rest without a word: energies without their references, forces in units of the normalizer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairchem.core.modules.normalization.element_references import load_references_from_config
from fairchem.core.modules.normalization.normalizer import load_normalizers_from_config
from torch.nn import Module

from dens_ocp.errors import DensError
from dens_ocp.settings import oc22_references

_LOADERS: dict[str, Callable[..., dict[str, Module]]] = {
    "normalizer": load_normalizers_from_config,
    "element_references": load_references_from_config,
}
_OFF = ("", "none", "null", "~", "false")
_SPLITS = ("train", "val", "test", "relax")


@dataclass
class Configured:
    """What a section names.

    Attributes:
        normalizer, element_references: fairchem's modules by target.
        unreadable: (option, target) -> why it is not among them.
    """

    normalizer: dict[str, Module] = field(default_factory=dict)
    element_references: dict[str, Module] = field(default_factory=dict)
    unreadable: dict[tuple[str, str], str] = field(default_factory=dict)


def read(section: Mapping[str, Any] | None) -> Configured:
    """Normalizers and references of a training set's section that need no training set.

    Args:
        section: ``dataset.train`` of a config, or ``dataset`` of a checkpoint's.
    """
    found = Configured()
    section = oc22_references.with_linear_references(dict(section or {}))
    transforms = section.get("transforms") or {}
    for option, load in _LOADERS.items():
        modules = getattr(found, option)
        for targets, entry in _entries(transforms.get(option) or {}):
            if entry is None:
                for target in targets:
                    if target not in modules:
                        found.unreadable[option, target] = "it is fitted to the training set"
                continue
            try:
                loaded = load(entry, dataset=None)
            except Exception as error:  # whatever fairchem and torch make of a file or a value
                reason = " ".join(str(part) for part in error.args) or type(error).__name__
                found.unreadable |= {(option, target): reason for target in targets}
                continue
            modules.update(loaded)
            for target in loaded:
                found.unreadable.pop((option, target), None)
    return found


def _entries(config: Mapping[str, Any]) -> Iterator[tuple[list[str], dict[str, Any] | None]]:
    """Targets, and what fairchem reads them from; None for those that are fitted. The file of all
    targets comes last: fairchem prefers it."""
    if config.get("fit"):
        yield list(config["fit"].get("targets") or ()), None
    for target, value in config.items():
        if target not in ("fit", "file"):
            yield [target], {target: dict(value)}
    if config.get("file"):
        yield ["all targets"], {"file": config["file"]}


def complete_from(
    section: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    path: str,
    normalizers: dict[str, Module],
    references: dict[str, Module],
) -> None:
    """Add to a loaded checkpoint's modules those that it lacks and a config names, in place: the
    config of this run, then the config that the checkpoint holds.

    Args:
        section: ``dataset.train`` of this run. checkpoint: its content. path: of it.
        normalizers, references: its modules, by target.

    Raises:
        DensError: a config names one that is neither in the checkpoint nor readable.
    """
    there = {"normalizer": normalizers, "element_references": references}
    own = (checkpoint.get("config") or {}).get("dataset")
    unreadable: dict[tuple[str, str], str] = {}
    for name, given in (
        ("dataset.train", section),
        (f"dataset.train of {path}", own if isinstance(own, dict) else None),
    ):
        configured = read(given)
        for option, modules in there.items():
            for target, module in getattr(configured, option).items():
                if target not in modules:
                    modules[target] = module
                    logging.warning(
                        "%s has no %s of %s; it is read from %s",
                        path, option, target, f"{name}.transforms.{option}",
                    )  # fmt: skip
        for (option, target), reason in configured.unreadable.items():
            unreadable.setdefault((option, target), f"{name}.transforms.{option}: {reason}")
    for (option, target), reason in unreadable.items():
        modules = there[option]
        if target not in modules and not (target == "all targets" and modules):
            raise DensError(
                f"{path} has no {option} of {target}. The config names one, but it cannot be "
                f"read ({reason}), and without it every prediction would be wrong; give "
                f"dataset.train.transforms.{option}.{target} its values or an existing file, or "
                "use a checkpoint that holds it"
            )


def keeping_settings(overrides: list[str]) -> list[str]:
    """``--dataset.train=None`` as ``--dataset.train.src=None``: the data set is not opened, and
    the settings that stand in its section (normalizers, references, ``key_mapping``, ``format``)
    still hold for the other data sets.

    Args:
        overrides: ``--section.option=value``; the same for every split of ``dataset``.
    """
    kept = []
    for override in overrides:
        name, _, value = override.partition("=")
        split = name.removeprefix("--dataset.")
        if split in _SPLITS and name.startswith("--dataset.") and value.lower() in _OFF:
            override = f"{name}.src=None"
        kept.append(override)
    return kept
