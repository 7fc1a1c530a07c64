"""The data sets of a config: files, records (readable, labels there and finite, units eV and
Angstrom), MD flags, metadata for load balancing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from dens_ocp.data.records.plausible_units import doubts, nearest_neighbour
from dens_ocp.errors import DensError
from dens_ocp.tools.config_model import scale_of
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding, guarded, refused
from dens_ocp.tools.doctor.training import check_step

_RANDOM_RECORDS, _MOST_KEPT, _MOST_DISTANCES = 8, 16, 32


class Seen(NamedTuple):
    """What a record that was read looks like: forces in eV/Angstrom, ``force_square``: mean over
    the components on free atoms, ``stress_square``: over those of the stress, (eV/Angstrom^3)^2;
    ``energy``: eV an atom; ``distance``: of nearest neighbours, Angstrom, not of all records.
    NaN: not known."""

    index: int
    natoms: int
    md: bool
    untagged: bool
    all_fixed: bool
    largest_force: float
    force_square: float
    stress_square: float
    energy: float
    distance: float


def sample(count: int, everything: bool, seed: int = 0) -> list[int] | range:
    """Indices to read: all, or the first, the last and some random ones, in rising order."""
    if everything:
        return range(count)
    drawn = np.random.default_rng(seed).integers(0, count, _RANDOM_RECORDS).tolist()
    return sorted({0, count - 1, *drawn})


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
        yield Finding(WARNING, where, f"format {form}: the files are not checked")
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
    rows: list[Seen] = []
    kept: list[Any] = []
    bad: list[str] = []
    indices = sample(len(dataset), everything)
    for index in tqdm(indices, desc=where, unit="records", disable=not everything):
        try:
            record = dataset[index]
            if kept:  # each record has to go into one batch with the first
                collater([kept[0], record])
            rows.append(_seen(index, record, len(rows) < _MOST_DISTANCES))
        except Exception as error:
            kind = "" if isinstance(error, DensError) else f"{type(error).__name__}: "
            bad.append("" if bad else f"index {index}: {kind}{error}")
        else:
            kept += [record][: _MOST_KEPT - len(kept)]
    seen = pd.DataFrame(rows, columns=Seen._fields)
    if bad:
        example = refused(where, DensError(bad[0]))
        number = f"{len(bad)} of {len(seen) + len(bad)}"
        text = f"{number} records read have a problem, for example {example.text}"
        fix = f"{example.fix} (dens-ocp doctor CONFIG --all finds all of them)"
        yield Finding(PROBLEM, where, text, fix)
    labels = f", and finite {' and '.join(required)}" if required else ""
    text = (
        f"{len(dataset):,} records ({form}); {len(seen):,} read: they have positions and "
        f"fixed{labels}"
    )
    status, fix = (OK, "") if rows else (PROBLEM, "write the LMDB again")
    yield Finding(status, where, text, fix)
    for number, text in (
        (seen.all_fixed.sum(), ("no free atom: they have no force loss, and DeNS does not change "
            "them")),
        (seen.untagged.sum(), "no tags: they cannot be relaxed, and errors by surface and "
            "adsorbate do not include them"),
    ):  # fmt: skip
        if number:
            yield Finding(WARNING, where, f"{number} of {len(seen)} records read have {text}")
    yield from _units(seen, where, section)
    if form == "dens_lmdb" and split == "train":
        yield _md(dataset, seen, where)
    yield from check_metadata(dataset, seen, config, section, where)
    if model is not None and split == "train" and kept:
        yield from guarded("step", partial(check_step, model, kept, where))


def _seen(index: int, record: Any, with_distance: bool) -> Seen:
    natoms, free = record.pos.shape[0], record.fixed == 0
    forces, energy = getattr(record, "forces", None), getattr(record, "energy", None)
    stress = getattr(record, "stress", None)
    return Seen(
        index=index,
        natoms=natoms,
        md=bool(getattr(record, "md", 0)),
        untagged=getattr(record, "tags", None) is None,
        all_fixed=not free.any(),
        largest_force=math.nan if forces is None else float(forces.norm(dim=-1).max()),
        force_square=math.nan if forces is None else float(forces[free].square().mean()),
        stress_square=math.nan if stress is None else float(stress.square().mean()),
        energy=math.nan if energy is None else abs(float(energy)) / natoms,
        distance=nearest_neighbour(record) if with_distance else math.nan,
    )


def _units(seen: pd.DataFrame, where: str, section: Mapping[str, Any]) -> Iterator[Finding]:
    nearest, rms = float(seen.distance.median()), float(seen.force_square.mean()) ** 0.5
    largest, energy = float(seen.largest_force.max()), float(seen.energy.max())
    found = doubts(
        nearest=nearest,
        rms_force=rms,
        largest_force=largest,
        rms_stress=float(seen.stress_square.mean()) ** 0.5,
        energy_per_atom=energy,
    )
    scale = scale_of(section, "forces")
    if scale and math.isfinite(rms) and not 1 / 100 < rms / scale < 100:
        found.append(f"rms force {rms:.3g}, but normalizer.forces.stdev {scale:.3g}")
    if found:
        text = f"implausible units: {'; '.join(found)}"
        fix = "labels must be in eV, eV/Angstrom and eV/Angstrom^3, lengths in Angstrom"
        yield Finding(WARNING, where, text, fix)
    elif math.isfinite(nearest):
        forces = "" if math.isnan(largest) else f", largest force {largest:.2g} eV/Angstrom"
        text = f"units are plausible: nearest neighbours at {nearest:.2f} Angstrom{forces}"
        yield Finding(OK, where, text)


def _md(dataset: Any, seen: pd.DataFrame, where: str) -> Finding:
    number = dataset.number_of_md_records
    if number is None:
        text = f"{seen.md.sum()} of the {len(seen)} records read are MD"
    else:
        text = f"{number:,} of {len(dataset):,} records are MD (never corrupted)"
    text += f", md_source: {dataset.md_source}"
    if dataset.md_source != "none":
        return Finding(OK, where, text)
    text += "; this is right for data without MD, otherwise name the MD files"
    return Finding(
        WARNING, where, text, (f"--{where}.md_files=[GLOB] (see MD flags in docs/options.md)")
    )


def check_metadata(
    dataset: Any,
    seen: pd.DataFrame,
    config: Mapping[str, Any],
    section: Mapping[str, Any],
    where: str,
) -> Iterator[Finding]:
    """``metadata.npz``: there, as many entries as records, and in their order.

    Args:
        dataset: its records.
        seen: those that were read, rows of :class:`Seen`.
        config, section, where: as in :func:`check_data_set`.
    """
    src = section["src"]
    src = Path(src[0] if isinstance(src, (list, tuple)) else src)
    folder = src.parent if src.is_file() else src
    path = Path(section.get("metadata_path") or folder / "metadata.npz")
    fix = (
        f"python -m fairchem.core.scripts.make_lmdb_sizes --data-path {src} --num-workers 8 (or "
        "--optim.load_balancing=None, but then GPUs wait longer for each other)"
    )
    name = f"{where} metadata"
    if not path.is_file():
        why = "load balancing over GPUs needs it"
        if config["optim"].get("load_balancing") == "atoms":
            why = "a run on several GPUs first reads all records to count their atoms"
        yield Finding(WARNING, name, f"{path} is missing: {why}", fix)
        return
    try:
        with np.load(path) as file:
            counts = file["natoms"]
    except (OSError, ValueError, KeyError) as error:
        yield Finding(PROBLEM, name, f"{path} has no readable natoms: {error}", fix)
        return
    total = getattr(dataset, "_whole_set", slice(0, len(dataset))).stop
    there = seen[seen["index"] < len(counts)]
    wrong = there[counts[there["index"].astype(int)] != there.natoms]
    if len(counts) != total:
        text = f"{path} has {len(counts)} entries, but the data set has {total} records"
        yield Finding(PROBLEM, name, text, fix)
    elif len(wrong) and total == len(dataset):
        index, natoms = wrong.iloc[0][["index", "natoms"]]
        text = (
            f"{path} belongs to other records: entry {index} says {counts[index]} atoms, but "
            "the record"
        )
        yield Finding(PROBLEM, name, f"{text} has {natoms}", fix)
    else:
        text = f"{len(counts):,} entries, {counts.mean():.1f} atoms per structure on average"
        yield Finding(OK, name, text)
