"""From files with crystals to folders ``train``, ``val``, ``test`` of ASE-LMDBs.

The files are read twice, so that no more than one structure is held at a time: first for what is
kept, to which split it goes, and whether the numbers look right; then to write it.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from dens_ocp.data.dataset_reference import DESCRIPTION, WRITTEN_BY
from dens_ocp.data.records.oc20_records import geometry
from dens_ocp.data.records.plausible_units import doubts, nearest_neighbour
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import sha256
from dens_ocp.tools.data.crystals.crystal import Crystal, Filters
from dens_ocp.tools.data.crystals.database import Databases
from dens_ocp.tools.data.crystals.sources import Labels, read
from dens_ocp.tools.data.frames import free_atoms
from dens_ocp.tools.data.split import SPLITS, draw

_DISTANCES = 32  # structures whose distances are looked at


class _Kept:
    """What the first reading says of the frames that stay.

    Attributes:
        numbers: of the frames, over all files; materials: theirs; files: "" or the split that a
            file was given for.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.materials: list[str] = []
        self.files: list[str] = []
        self.elements: set[int] = set()
        self.distances: list[float] = []
        self.largest_force = 0.0  # eV/Angstrom, of free atoms
        self._sums = {"forces": [0.0, 0], "stress": [0.0, 0]}  # of squares, and of components

    def add(self, number: int, crystal: Crystal, file: str) -> None:
        frame = crystal.frame
        self.numbers.append(number)
        self.materials.append(crystal.material)
        self.files.append(file)
        self.elements.update(frame.atoms.numbers.tolist())
        if len(self.distances) < _DISTANCES:
            self.distances.append(nearest_neighbour(geometry(frame.atoms, 0)))
        free = frame.forces[free_atoms(frame)]
        self.largest_force = max(
            self.largest_force, float(np.linalg.norm(free, axis=1).max(initial=0))
        )
        for name, values in (("forces", free), ("stress", crystal.stress)):
            if values is not None:
                self._sums[name][0] += float((values**2).sum())
                self._sums[name][1] += values.size

    def rms(self, name: str) -> float:
        """Of components; NaN: there are none."""
        squares, components = self._sums[name]
        return math.sqrt(squares / components) if components else math.nan

    def nearest(self) -> float:
        known = [each for each in self.distances if np.isfinite(each)]
        return float(np.median(known)) if known else math.nan


def convert(
    files: Mapping[str, Sequence[Path]],
    out: Path,
    labels: Labels,
    *,
    filters: Filters,
    shares: Mapping[str, float],
    seed: int = 0,
    skip_incomplete: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write ``out/train``, ``out/val``, ``out/test`` and ``out/dataset.json``.

    Everything is written beside ``out`` and renamed when it is complete.

    Args:
        files: ``""``: those whose materials are dealt to the splits; ``val``, ``test``: those
            that are this split.
        out: folder; must not exist, or be empty.
        labels: where they lie in the files.
        filters: what is left out.
        shares: of the materials, for ``val`` and ``test``.
        seed: of the draw.
        skip_incomplete: leave out what cannot be trained on, and print how much.

    Returns:
        What ``dataset.json`` says.

    Raises:
        DensError: ``out`` is not empty; a frame that cannot be trained on; too few materials;
            nothing left.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DensError(f"--out: {out} exists already; name another folder, or remove it")
    kept, left_out = _look(files, labels, filters, skip_incomplete, progress)
    split_of = _deal(kept, {name for name, paths in files.items() if paths}, shares, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as temporary:
        new = Path(temporary, "new")
        counts = _write(
            new, files, labels, dict(zip(kept.numbers, split_of, strict=True)), progress
        )
        described = _describe(files, labels, kept, split_of, left_out, counts, seed, filters)
        (new / DESCRIPTION).write_text(json.dumps(described, indent=2) + "\n")
        if out.exists():
            out.rmdir()
        new.rename(out)
    return described


def _frames(
    files: Mapping[str, Sequence[Path]], labels: Labels, what: str, progress: bool
) -> Iterator[tuple[int, str, Crystal | DensError]]:
    """Number over all files, the split that the file was given for or "", the crystal."""
    number = 0
    for split, paths in files.items():
        for path in paths:
            bar = tqdm(read(path, labels), desc=f"{what} {path.name}", unit="frame",
                       disable=None if progress else True)  # fmt: skip
            for crystal in bar:
                yield number, split, crystal
                number += 1


def _look(
    files: Mapping[str, Sequence[Path]],
    labels: Labels,
    filters: Filters,
    skip_incomplete: bool,
    progress: bool,
) -> tuple[_Kept, Counter[str]]:
    kept, left_out = _Kept(), Counter[str]()
    incomplete, first = 0, ""
    for number, split, crystal in _frames(files, labels, "check", progress):
        if isinstance(crystal, DensError):
            incomplete, first = incomplete + 1, first or str(crystal)
        elif (reason := filters.reason(crystal)) is not None:
            left_out[reason] += 1
        else:
            kept.add(number, crystal, split)
    total = incomplete + left_out.total() + len(kept.numbers)
    if incomplete and not skip_incomplete:
        raise DensError(
            f"{first} ({incomplete} of {total} frames are not usable for training; "
            "--skip-incomplete leaves them out)"
        )
    if incomplete:
        print(f"{incomplete} of {total} frames are left out; the first: {first}")
        left_out["incomplete"] = incomplete
    if not kept.numbers:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in left_out.items())
        raise DensError(f"none of the {total} frames is left ({reasons or 'the files are empty'})")
    return kept, left_out


def _deal(kept: _Kept, given: set[str], shares: Mapping[str, float], seed: int) -> list[str]:
    """The split of each frame: that of its material, drawn from all materials in the order of
    their names, or of its file."""
    materials = sorted({m for m, file in zip(kept.materials, kept.files, strict=True) if not file})
    numbers: dict[str, int | None] = {}
    for name in ("val", "test"):
        share = 0.0 if name in given else shares[name]
        numbers[name] = max(1, round(share * len(materials))) if share > 0 else 0
    rest = len(materials) - sum(number or 0 for number in numbers.values())
    if rest < 1:
        raise DensError(
            f"{len(materials)} materials cannot be split into train, val and test (--val "
            f"{shares['val']:g}, --test {shares['test']:g}), each with at least one material; "
            "give smaller fractions, --val 0, separate files (--val-file), or another "
            "--material-key"
        )
    drawn = draw(len(materials), {"train": rest, **numbers}, None, seed)
    split_of = {materials[index]: name for name in SPLITS for index in drawn[name]}
    return [
        file or split_of[material]
        for material, file in zip(kept.materials, kept.files, strict=True)
    ]


def _write(
    new: Path,
    files: Mapping[str, Sequence[Path]],
    labels: Labels,
    split_of: Mapping[int, str],
    progress: bool,
) -> dict[str, int]:
    present = set(split_of.values())
    with ExitStack() as stack:
        databases = {
            name: stack.enter_context(Databases(new / name)) for name in SPLITS if name in present
        }
        for number, _, crystal in _frames(files, labels, "write", progress):
            if number in split_of and isinstance(crystal, Crystal):
                databases[split_of[number]].write(crystal, number)
        return {name: len(database.natoms) for name, database in databases.items()}


def _describe(
    files: Mapping[str, Sequence[Path]],
    labels: Labels,
    kept: _Kept,
    split_of: list[str],
    left_out: Counter[str],
    counts: Mapping[str, int],
    seed: int,
    filters: Filters,
) -> dict[str, Any]:
    of_split: dict[str, set[str]] = {name: set() for name in counts}
    for material, name in zip(kept.materials, split_of, strict=True):
        of_split[name].add(material)
    warnings = doubts(
        nearest=kept.nearest(),
        rms_force=kept.rms("forces"),
        largest_force=kept.largest_force,
        rms_stress=kept.rms("stress"),
    )
    for name in ("val", "test"):
        both = of_split.get("train", set()) & of_split.get(name, set())
        if both:
            warnings.append(
                f"{len(both)} materials of {name} are also in train, for example {min(both)}: "
                f"the errors on {name} say little about new materials"
            )
    return {
        "written_by": WRITTEN_BY,
        "sources": [
            {"file": path.name, "sha256": sha256(path), "split": split or "drawn",
             "labels": labels.of(path).described()}
            for split, paths in files.items() for path in paths
        ],
        "units": {"energy": "eV", "forces": "eV/Angstrom", "stress": "eV/Angstrom^3, ASE's sign"},
        "energy": {"meaning": "total energy", "reference": "none", "reference_eV": {}},
        "split": {"seed": seed, **counts},
        "materials": {name: len(found) for name, found in of_split.items()},
        "sid": "the material",
        "fid": "number of the frame over all files, from 0",
        "filters": filters._asdict(),
        "left_out": dict(left_out),
        "largest_atomic_number": max(kept.elements),
        "nearest_neighbours_Angstrom": _known(kept.nearest()),
        "rms_force_eV_per_Angstrom": kept.rms("forces"),
        "largest_force_eV_per_Angstrom": kept.largest_force,
        "rms_stress_eV_per_Angstrom3": _known(kept.rms("stress")),
        "warnings": warnings,
    }  # fmt: skip


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
