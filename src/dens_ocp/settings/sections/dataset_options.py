"""The options of a data set's section, of normalizers and of references."""

from __future__ import annotations

import os
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from dens_ocp.dens.options import FairchemSection, one_of
from dens_ocp.settings.sections.values import Decimal, Flag, Number, Whole, number


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

    format: str = Field(
        "lmdb",
        description="format of the files: lmdb, dens_lmdb, oc22_lmdb, ase_db, dens_ase_db, "
        "ase_read, or the full name of a class",
    )
    src: Annotated[Any, BeforeValidator(_paths)] = Field(
        None,
        description="path of the data set: a folder or a file; a list of them for formats of ASE",
    )
    key_mapping: Any = Field(
        None,
        description="new names of attributes of the records, for example {y: energy, force: "
        "forces}",
    )
    transforms: Any = Field(
        None,
        description="how labels are transformed: normalizer, element_references, decompose_tensor",
    )
    use_train_settings: Flag = Field(
        True,
        description="for val, test and relax: an option that is not given has the value of train",
    )
    splits: Any = Field(None, description="options that are different for each split, by split")
    train_split_settings: Any = Field(None, description="options that apply only to training")
    val_split_settings: Any = Field(None, description="options that apply only to validation")
    test_split_settings: Any = Field(None, description="options that apply only to prediction")
    # which records
    seed: Whole = Field(0, description="seed of the random order of the records, and of sample_n")
    first_n: Whole = Field(
        1, ge=1, examples=[1000], description="use only this number of records, the first ones"
    )
    sample_n: Whole = Field(
        1, ge=1, examples=[1000], description="use only this number of records, drawn at random"
    )
    no_shuffle: Flag = Field(
        False,
        description="keep the records in their order; use only one of first_n, sample_n and "
        "no_shuffle",
    )
    max_atom: Whole = Field(
        1, ge=1, description="without effect in fairchem-core 1.10.0; use max_atoms"
    )
    max_atoms: Whole = Field(
        1,
        ge=1,
        examples=[200],
        description="leave out structures with more atoms; needs metadata.npz",
    )
    subset_to: Any = Field(
        None,
        description="filters by a value in metadata.npz: a list of {metadata_key: NAME, op: "
        "abs_le or in, rhv: VALUE}",
    )
    shard: Whole = Field(
        0, ge=0, description="lmdb: number of the shard to use, from 0; with total_shards"
    )
    total_shards: Whole = Field(
        1, ge=1, description="lmdb: number of shards that the records are divided into"
    )
    metadata_path: Path_ = Field(
        None,
        description="file with the number of atoms of each record (default: metadata.npz in the "
        "folder of the data)",
    )
    # LMDB
    lin_ref: Path_ = Field(
        None,
        description="oc22_lmdb: file with a linear reference energy for each element, eV; used "
        "as transforms.element_references.energy.file",
    )
    oc20_ref: Path_ = Field(
        None,
        description="file with the reference energies of OC20, eV; for "
        "train_on_oc20_total_energies",
    )
    train_on_oc20_total_energies: Flag = Field(
        False, description="train on total energies of OC20, not on adsorption energies"
    )
    data2train: one_of("all", "adslabs", "slabs") = Field(
        "all",
        description="oc22_lmdb: which records to use: all, slabs with adsorbate (adslabs), or "
        "clean slabs (slabs)",
    )
    md_source: Any = Field(
        None,
        description="dens_lmdb: where it is recorded which records are from MD: auto, data_log, "
        "files, records or none",
    )
    md_files: Any = Field(
        None,
        description="dens_lmdb: LMDB files, globs or folders in which all records are from MD",
    )
    # ASE
    a2g_args: Any = Field(
        None,
        description="formats of ASE: which labels to read, for example {r_energy: True, "
        "r_forces: True, r_stress: True}",
    )
    keep_in_memory: Flag = Field(
        False, description="formats of ASE: keep structures in memory after they were read"
    )
    include_relaxed_energy: Flag = Field(
        False,
        description="formats of ASE: add the energy of the relaxed structure as energy_relaxed",
    )
    atoms_transform_args: Any = Field(
        None, description="formats of ASE: arguments of the function that transforms ASE's atoms"
    )
    transform_args: Any = Field(
        None, description="formats of ASE: arguments of the function that transforms a record"
    )
    ase_read_args: Any = Field(None, description="ase_read: arguments of ase.io.read")
    pattern: str = Field("*", description="ase_read: which files of the folder to read, as a glob")
    index_file: Path_ = Field(
        None,
        description="ase_read_multi: file that lists the files and the number of structures in "
        "each",
    )
    use_tqdm: Flag = Field(
        True, description="ase_read_multi: show a progress bar while the files are opened"
    )
    connect_args: Any = Field(None, description="ase_db: arguments of ase.db.connect")
    select_args: Any = Field(
        None, description="ase_db: arguments of the database's select, which chooses rows"
    )
    # of configs before version 2
    target: str = Field("", description="without effect in fairchem-core 1.10.0; use key_mapping")
    normalize_labels: Flag = Field(
        False,
        description="older configs: normalise the labels with the next four options; use "
        "transforms.normalizer",
    )
    target_mean: Decimal = Field(0.0, description="older configs: mean of the energy, eV")
    target_std: Decimal = Field(
        1.0, gt=0, description="older configs: standard deviation of the energy, eV"
    )
    grad_target_mean: Decimal = Field(
        0.0, description="older configs: mean of the forces, eV/Angstrom"
    )
    grad_target_std: Decimal = Field(
        1.0, gt=0, description="older configs: standard deviation of the forces, eV/Angstrom"
    )


class Normalizer(FairchemSection):
    """``transforms.normalizer.<target>``: fairchem's ``create_normalizer``.

    Decimals: an integer mean becomes an integer buffer, into which a checkpoint's is truncated.
    """

    mean: Annotated[Any, BeforeValidator(_decimals)] = Field(
        0.0, examples=[0.0], description="mean, in the unit of the label"
    )
    stdev: Annotated[Any, BeforeValidator(_positive_decimals)] = Field(
        1.0, examples=[1.5], description="standard deviation, in the unit of the label"
    )
    rmsd: Annotated[Any, BeforeValidator(_positive_decimals)] = Field(
        1.0,
        examples=[1.5],
        description="root mean square deviation from mean, in the unit of the label; used in "
        "place of stdev if both are given",
    )
    file: Path_ = Field(None, description="file with the values, .pt or .npz")
    state_dict: Any = Field(None, description="state of a fairchem Normalizer")
    tensor: Any = Field(
        None, description="values of the label; their mean and standard deviation are used"
    )


class Fit(FairchemSection):
    """``transforms.normalizer.fit`` and ``transforms.element_references.fit``."""

    targets: Any = Field(
        None,
        examples=["[energy]"],
        description="labels to fit: a list of names, or {NAME: {mean: 0.0}} to fix a value",
    )
    batch_size: Whole = Field(
        1, ge=1, examples=[8], description="structures per batch during the fit"
    )
    num_batches: Whole = Field(
        1, ge=1, examples=[10000], description="number of batches to use (default: all)"
    )
    num_workers: Whole = Field(0, ge=0, description="number of data workers during the fit")
    shuffle: Flag = Field(True, description="draw the batches at random")
    seed: Whole = Field(0, description="seed of the random batches")
    fitted: Flag = Field(
        False, description="True: the values are already fitted (fairchem-core sets it)"
    )
    override_values: Any = Field(
        None,
        description="normalizer: values that are not fitted, for example {forces: {mean: 0.0}}",
    )
    rmsd_correction: Number = Field(
        0,
        description="normalizer: subtracted from the number of values, as in torch.std (default: "
        "0 if the mean is 0, else 1)",
    )
    max_num_elements: Whole = Field(
        118, ge=1, description="element_references: largest atomic number"
    )
    log_metrics: Flag = Field(True, description="element_references: log the errors of the fit")
    use_numpy: Flag = Field(
        True, description="element_references: solve with NumPy, not with torch"
    )
    driver: str = Field(
        "", description="element_references: driver of torch.linalg.lstsq, if use_numpy is False"
    )


class Reference(FairchemSection):
    """``transforms.element_references.<target>``."""

    file: Path_ = Field(None, description="file with the references, .pt or .npz")
    state_dict: Any = Field(None, description="state of fairchem's LinearReferences")
