"""``dataset``: its sections train, val, test and relax, and what stands in them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fairchem.core.common.registry import registry
from fairchem.core.modules import transforms as fairchem_transforms
from fairchem.core.preprocessing import AtomsToGraphs

from dens_ocp.dens.options import Section, chosen, is_missing, mapping, need, read, unknown
from dens_ocp.errors import DensError
from dens_ocp.settings.sections import signatures
from dens_ocp.settings.sections.dataset_options import DataSet, Fit, Normalizer, Reference
from dens_ocp.settings.sections.values import registered

SPLITS = ("train", "val", "test", "relax")

_OLD_FORMATS = {"trajectory_lmdb_v2": "trajectory_lmdb"}
"""Names in published configs -> fairchem-core 1.10.0's for the same files."""


def checked(dataset: Any, where: str = "dataset") -> Any:
    """The section, typed, in the form in which it was written; one data set by itself becomes
    ``train``.

    Raises:
        DensError: an unknown name or value.
    """
    if isinstance(dataset, Sequence) and not isinstance(dataset, str):
        if len(dataset) > len(SPLITS):
            raise DensError(
                f"{where}: {len(dataset)} data sets are given; the list may have {len(SPLITS)}: "
                f"{', '.join(SPLITS)}"
            )
        names = [f"{where}.{split}" for split in SPLITS]
        return [data_set(each, name) for each, name in zip(dataset, names, strict=False)]
    sections = mapping(dataset, where)
    if sections and not any(split in sections for split in SPLITS) and "src" in sections:
        sections = {"train": sections}  # which fairchem would not see
    result = {}
    for split, section in sections.items():
        if split not in SPLITS:
            raise unknown(where, split, SPLITS)
        if not is_missing(section):
            result[split] = data_set(section, f"{where}.{split}")
    return result


def data_set(section: Any, where: str) -> dict[str, Any]:
    """The section of one data set, typed.

    Raises:
        DensError: an unknown name or value.
    """
    section = dict(mapping(section, where, "{format: lmdb, src: PATH}"))
    ours = True
    if not is_missing(section.get("format")):
        section["format"] = data_format(section["format"], f"{where}.format")
        cls = registry.get_dataset_class(section["format"])
        ours = cls.__module__.startswith(("fairchem.", "dens_ocp."))
    result = read(DataSet, section, where, others=not ours)
    if str(section.get("md_source") or "").lower() == "none":
        result["md_source"] = "none"  # no record is MD; a null would be "auto"
    if "target" in result:
        logging.warning(
            "%s.target: %s has no effect in fairchem-core 1.10.0; write key_mapping: {%s: "
            "energy} instead",
            where, result["target"], result["target"],
        )  # fmt: skip
    if "key_mapping" in result:
        mapping(result["key_mapping"], f"{where}.key_mapping", "{y: energy, force: forces}")
    if "a2g_args" in result:
        inside = f"{where}.a2g_args"
        given = mapping(result["a2g_args"], inside, "{r_energy: True, r_forces: True}")
        result["a2g_args"] = signatures.typed(given, AtomsToGraphs, inside)
    if "transforms" in result:
        result["transforms"] = _transforms(result["transforms"], f"{where}.transforms")
    for split in SPLITS[:3]:
        name = f"{split}_split_settings"
        if name in result:
            result[name] = data_set(result[name], f"{where}.{name}")
    if "splits" in result:
        splits = mapping(result["splits"], f"{where}.splits")
        result["splits"] = {
            split: data_set(each, f"{where}.splits.{split}") for split, each in splits.items()
        }
    return result


def data_format(name: Any, where: str) -> str:
    """A registered format, or the dotted path of a class.

    Raises:
        DensError: it is not known.
    """
    name = _OLD_FORMATS.get(str(name), str(name))
    if "." in name:
        return name
    return chosen(name, registered("dataset", name), where)


def _transforms(block: Any, where: str) -> dict[str, Any]:
    block = mapping(block, where, "{normalizer: {energy: {mean: 0.0, stdev: 1.5}}}")
    result = {}
    for name, options in block.items():
        inside = f"{where}.{name}"
        if name == "normalizer":
            if not is_missing(options):
                result[name] = _targets(options, inside, Normalizer)
        elif name == "element_references":
            if not is_missing(options):
                result[name] = _targets(options, inside, Reference)
        elif not callable(getattr(fairchem_transforms, name, None)):
            raise unknown(where, name, ["normalizer", "element_references", "decompose_tensor"])
        else:
            result[name] = options
    return result


def _targets(block: Any, where: str, model: type[Section]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for target, options in mapping(block, where).items():
        inside = f"{where}.{target}"
        if target == "file":
            if not is_missing(options):
                result[target] = options
        elif target == "fit":
            if not is_missing(options):
                result[target] = _fit(options, inside)
        elif isinstance(options, model):
            result[target] = options
        elif not is_missing(options):
            result[target] = read(model, options, inside, example="{mean: 0.0, stdev: 1.5}")
            _complete(result[target], model, inside)
    return result


def _complete(options: Mapping[str, Any], model: type[Section], where: str) -> None:
    if model is not Normalizer or {"file", "state_dict", "tensor"} & options.keys():
        return
    for name in ("mean", "stdev"):
        if name not in options and not (name == "stdev" and "rmsd" in options):
            raise DensError(
                f"{where}.{name} is missing; give mean and stdev, or file, or write fit: "
                "{targets: ..., batch_size: 8} to fit them to the training set"
            )


def _fit(block: Any, where: str) -> dict[str, Any]:
    fit = read(Fit, block, where, example="{targets: {forces: {mean: 0.0}}, batch_size: 8}")
    need(fit, ("targets", "batch_size"), Fit, where)
    if isinstance(fit["targets"], str):
        fit["targets"] = [fit["targets"]]
    for name in ("targets", "override_values"):
        if isinstance(fit.get(name), Mapping):
            fit[name] = {
                target: read(Normalizer, values, f"{where}.{name}.{target}")
                for target, values in fit[name].items()
            }
    return fit
