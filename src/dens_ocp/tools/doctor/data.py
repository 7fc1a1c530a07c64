"""The data sets of a config: files, records, MD flags, metadata for load balancing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding, guarded
from dens_ocp.tools.doctor.records import findings, look, sample
from dens_ocp.tools.doctor.training import check_step


def check_data_set(
    config: Mapping[str, Any],
    split: str,
    section: Mapping[str, Any],
    everything: bool,
    model: Any = None,
) -> Iterator[Finding]:
    """Findings on one data set.

    Args:
        config: the whole, as of ``settings.run_config.read``.
        split: train, val, test or relax.
        section: of the data set, inherited settings included.
        everything: read every record.
        model: of the config, None if it cannot be built; records have to fit it. With those of the
            training set it is run once.

    Raises:
        DensError: files that are missing or damaged, MD flags that do not fit.
    """
    from fairchem.core.datasets.lmdb_dataset import data_list_collater

    from dens_ocp.data.checks import LMDB_FORMATS, check_dataset_paths
    from dens_ocp.data.opened_data import check_box_of, is_periodic, open_data_set, rules_of
    from dens_ocp.data.records.collation import CheckingCollater
    from dens_ocp.data.records.named_records import read_with

    where = f"dataset.{split}"
    check_dataset_paths(section, where)
    form = section.get("format", "lmdb")
    if form not in LMDB_FORMATS:
        yield Finding(WARNING, where, f"format {form}: its files are not looked at")
    yield from guarded(where, lambda: check_box_of(model, section["src"], split) or ())
    dataset = open_data_set(dict(section), split, whole=True)
    targets = {target for loss in config["loss_functions"] for target in loss}
    required = {
        target: output["level"]
        for target, output in config["outputs"].items()
        if target in targets and split in ("train", "val")
    }
    read_with(dataset, rules_of(model, split, required, form))
    collater = CheckingCollater(partial(data_list_collater, otf_graph=True), where,
                                is_periodic(model))  # fmt: skip
    seen = look(dataset, sample(len(dataset), everything), collater, where, progress=everything)
    yield from findings(seen, len(dataset), where, required, form, section)
    if form == "dens_lmdb" and split == "train":
        yield _md(dataset, seen, where)
    yield from check_metadata(dataset, seen.natoms, config, section, where)
    if model is not None and split == "train" and seen.kept:
        yield from guarded("step", partial(check_step, model, seen.kept, where))


def _md(dataset: Any, seen: Any, where: str) -> Finding:
    number = dataset.number_of_md_records
    if number is None:
        text = f"{seen.md} of the {len(seen.natoms)} records read are MD"
    else:
        text = f"{number:,} of {len(dataset):,} records are MD (never corrupted)"
    text += f", md_source: {dataset.md_source}"
    if dataset.md_source == "none":
        return Finding(
            WARNING, where, f"{text}: right for data without MD; else name them",
            f"--{where}.md_files=[GLOB]; docs/options.md, MD flags",
        )  # fmt: skip
    return Finding(OK, where, text)


def check_metadata(
    dataset: Any,
    natoms: Mapping[int, int],
    config: Mapping[str, Any],
    section: Mapping[str, Any],
    where: str,
) -> Iterator[Finding]:
    """``metadata.npz``: there, as many entries as records, and in their order.

    Args:
        dataset: its records.
        natoms: number of atoms of the records that were read, by index.
        config, section, where: as in :func:`check_data_set`.
    """
    # with the word load_balancing a run on several ranks counts the atoms itself
    counts_itself = config["optim"].get("load_balancing") == "atoms"
    src = section["src"]
    src = Path(src[0] if isinstance(src, (list, tuple)) else src)
    folder = src.parent if src.is_file() else src
    path = Path(section.get("metadata_path") or folder / "metadata.npz")
    fix = (
        f"python -m fairchem.core.scripts.make_lmdb_sizes --data-path {src} --num-workers 8"
        f" (or --optim.load_balancing=None: several GPUs then wait for each other more)"
    )
    name = f"{where} metadata"
    if not path.is_file():
        why = (
            "a run on several GPUs reads all records first, to count their atoms"
            if counts_itself
            else "load balancing over GPUs needs it"
        )
        yield Finding(WARNING, name, f"{path} is missing: {why}", fix)
        return
    try:
        with np.load(path) as file:
            counts = file["natoms"]
    except (OSError, ValueError, KeyError) as error:
        yield Finding(PROBLEM, name, f"{path} has no readable natoms: {error}", fix)
        return
    total = getattr(dataset, "_whole_set", slice(0, len(dataset))).stop
    wrong = [i for i, number in natoms.items() if i < len(counts) and counts[i] != number]
    if len(counts) != total:
        text = f"{path} has {len(counts)} entries, the data set {total} records"
        yield Finding(PROBLEM, name, text, fix)
    elif wrong and total == len(dataset):
        text = (
            f"{path} is of other records: entry {wrong[0]} says {counts[wrong[0]]} atoms, the "
            f"record has {natoms[wrong[0]]}"
        )
        yield Finding(PROBLEM, name, text, fix)
    else:
        text = f"{len(counts):,} entries, {counts.mean():.1f} atoms a structure on average"
        yield Finding(OK, name, text)
