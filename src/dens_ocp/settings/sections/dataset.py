"""``dataset``: its sections train, val, test and relax, and what stands in them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fairchem.core.common.registry import registry
from fairchem.core.modules import transforms as fairchem_transforms
from fairchem.core.preprocessing import AtomsToGraphs
from pydantic import BeforeValidator, Field

from dens_ocp.dens.options import (
    FairchemSection,
    Section,
    chosen,
    is_missing,
    mapping,
    need,
    one_of,
    read,
    unknown,
)
from dens_ocp.errors import DensError
from dens_ocp.settings.sections import signatures
from dens_ocp.settings.sections.values import Decimal, Flag, Number, Whole, number, registered

SPLITS = ("train", "val", "test", "relax")

_OLD_FORMATS = {"trajectory_lmdb_v2": "trajectory_lmdb"}
"""Names in published configs -> fairchem-core 1.10.0's for the same files."""


def _decimals(value: Any) -> float | list[float]:
    if isinstance(value, (list, tuple)):
        return [float(number(each)) for each in value]
    return float(number(value))


def _positive_decimals(value: Any) -> float | list[float]:
    read = _decimals(value)
    if any(not each > 0 for each in (read if isinstance(read, list) else [read])):
        raise ValueError("must be larger than 0")
    return read


def _path(value: Any) -> Any:
    if isinstance(value, (str, os.PathLike)):
        return value
    raise ValueError("is not a path")


def _paths(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_path(each) for each in value]
    return _path(value)


Path_ = Annotated[Any, BeforeValidator(_path)]


class DataSet(FairchemSection):
    """What fairchem-core 1.10.0 and this package read of one data set's section, for all formats
    of theirs."""

    format: str = "lmdb"
    src: Annotated[Any, BeforeValidator(_paths)] = None
    key_mapping: Any = None
    transforms: Any = None
    use_train_settings: Flag = True
    splits: Any = None
    train_split_settings: Any = None
    val_split_settings: Any = None
    test_split_settings: Any = None
    # which records
    seed: Whole = 0
    first_n: Whole = Field(1, ge=1, examples=[1000])
    sample_n: Whole = Field(1, ge=1, examples=[1000])
    no_shuffle: Flag = False
    max_atom: Whole = Field(1, ge=1)
    max_atoms: Whole = Field(1, ge=1, examples=[200])
    subset_to: Any = None
    shard: Whole = Field(0, ge=0)
    total_shards: Whole = Field(1, ge=1)
    metadata_path: Path_ = None
    # LMDB
    lin_ref: Path_ = None
    oc20_ref: Path_ = None
    train_on_oc20_total_energies: Flag = False
    data2train: one_of("all", "adslabs", "slabs") = "all"
    md_source: Any = None
    md_files: Any = None
    # ASE
    a2g_args: Any = None
    keep_in_memory: Flag = False
    include_relaxed_energy: Flag = False
    atoms_transform_args: Any = None
    transform_args: Any = None
    ase_read_args: Any = None
    pattern: str = "*"
    index_file: Path_ = None
    use_tqdm: Flag = True
    connect_args: Any = None
    select_args: Any = None
    # of configs before version 2
    target: str = ""
    normalize_labels: Flag = False
    target_mean: Decimal = 0.0
    target_std: Decimal = Field(1.0, gt=0)
    grad_target_mean: Decimal = 0.0
    grad_target_std: Decimal = Field(1.0, gt=0)


class Normalizer(FairchemSection):
    """``transforms.normalizer.<target>``: fairchem's ``create_normalizer``.

    Decimals: an integer mean becomes an integer buffer, into which a checkpoint's is truncated.
    """

    mean: Annotated[Any, BeforeValidator(_decimals)] = Field(0.0, examples=[0.0])
    stdev: Annotated[Any, BeforeValidator(_positive_decimals)] = Field(1.0, examples=[1.5])
    rmsd: Annotated[Any, BeforeValidator(_positive_decimals)] = Field(1.0, examples=[1.5])
    file: Path_ = None
    state_dict: Any = None
    tensor: Any = None


class Fit(FairchemSection):
    """``transforms.normalizer.fit`` and ``transforms.element_references.fit``."""

    targets: Any = Field(None, examples=["[energy]"])
    batch_size: Whole = Field(1, ge=1, examples=[8])
    num_batches: Whole = Field(1, ge=1, examples=[10000])
    num_workers: Whole = Field(0, ge=0)
    shuffle: Flag = True
    seed: Whole = 0
    fitted: Flag = False
    override_values: Any = None
    rmsd_correction: Number = 0
    max_num_elements: Whole = Field(118, ge=1)
    log_metrics: Flag = True
    use_numpy: Flag = True
    driver: str = ""


class Reference(FairchemSection):
    """``transforms.element_references.<target>``."""

    file: Path_ = None
    state_dict: Any = None


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
