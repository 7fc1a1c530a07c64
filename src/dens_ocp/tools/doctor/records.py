"""Records of a data set: readable, labels there and finite, units eV and Angstrom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from dens_ocp.data.records.plausible_units import doubts, nearest_neighbour
from dens_ocp.errors import DensError
from dens_ocp.tools.doctor.finding import OK, PROBLEM, WARNING, Finding, refused

_RANDOM_RECORDS, _MOST_KEPT, _MOST_DISTANCES = 8, 16, 32


@dataclass
class Seen:
    """What the records that were read look like: numbers of records, ``natoms`` by index,
    ``largest_forces`` and mean squares of forces in eV/Angstrom, ``energies`` an atom in eV,
    ``distances`` in Angstrom, the first records, the first reason to refuse one."""

    md: int = 0
    untagged: int = 0
    all_fixed: int = 0
    natoms: dict[int, int] = field(default_factory=dict)
    largest_forces: list[float] = field(default_factory=list)
    force_squares: list[float] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    refused: str = ""
    number_refused: int = 0

    def add(self, index: int, record: Any) -> None:
        """Note a record that fits."""
        natoms = self.natoms[index] = record.pos.shape[0]
        if len(self.kept) < _MOST_KEPT:
            self.kept.append(record)
        if len(self.distances) < _MOST_DISTANCES:
            self.distances.append(nearest_neighbour(record))
        self.md += bool(getattr(record, "md", 0))
        self.untagged += getattr(record, "tags", None) is None
        self.all_fixed += bool((record.fixed != 0).all())
        if getattr(record, "forces", None) is not None:
            self.largest_forces.append(float(record.forces.norm(dim=-1).max()))
            self.force_squares.append(float(record.forces[record.fixed == 0].square().mean()))
        if getattr(record, "energy", None) is not None:
            self.energies.append(abs(float(record.energy)) / natoms)


def sample(count: int, everything: bool, seed: int = 0) -> list[int] | range:
    """Indices to read: all, or the first, the last and some random ones, in rising order."""
    if everything:
        return range(count)
    drawn = np.random.default_rng(seed).integers(0, count, _RANDOM_RECORDS).tolist()
    return sorted({0, count - 1, *drawn})


def look(
    dataset: Any, indices: Iterable[int], collater: Any, where: str, progress: bool = False
) -> Seen:
    """Read and check records; goes on after one that is refused.

    Args:
        dataset: fairchem's data set (the whole of it), after ``named_records.read_with``.
        indices: which records.
        collater: of the data set; each record has to go into one batch with the first.
        where: config section, for messages.
        progress: show a bar.
    """
    seen = Seen()
    for index in tqdm(indices, desc=where, unit="records", disable=not progress):
        try:
            record = dataset[index]
            if seen.kept:
                collater([seen.kept[0], record])
            seen.add(index, record)
        except Exception as error:
            seen.number_refused += 1
            kind = "" if isinstance(error, DensError) else f"{type(error).__name__}: "
            seen.refused = seen.refused or f"index {index}: {kind}{error}"
    return seen


def findings(seen: Seen, total: int, where: str, required: Mapping[str, str], form: str,
             section: Mapping[str, Any]) -> Iterator[Finding]:  # fmt: skip
    """What :func:`look` saw, as findings.

    Args:
        seen: of one data set.
        total: number of its records.
        where: config section.
        required: labels of the loss.
        form: ``format`` of the data set.
        section: its config section, for the normalizer of the forces.
    """
    read = len(seen.natoms)
    if seen.refused:
        example = refused(where, DensError(seen.refused))
        number = f"{seen.number_refused} of {read + seen.number_refused}"
        text = f"{number} records read are bad, for example {example.text}"
        fix = f"{example.fix} (dens-ocp doctor CONFIG --all finds all of them)"
        yield Finding(PROBLEM, where, text, fix)
    labels = f", {' and '.join(required)} finite" if required else ""
    text = f"{total:,} records ({form}); {read:,} read: positions{labels}, fixed there"
    status, fix = (OK, "") if read else (PROBLEM, "write the LMDB again")
    yield Finding(status, where, text, fix)
    for number, text in (
        (seen.all_fixed, "no free atom: they have no force loss, and DeNS leaves them alone"),
        (seen.untagged, "no tags: relaxations refuse them, breakdowns of errors by surface and "
         "adsorbate lack them"),
    ):  # fmt: skip
        if number:
            yield Finding(WARNING, where, f"{number} of {read} records read have {text}")
    yield from _units(seen, where, section)


def _units(seen: Seen, where: str, section: Mapping[str, Any]) -> Iterator[Finding]:
    distances = np.array(seen.distances)[np.isfinite(seen.distances)]
    squares = np.array(seen.force_squares)[np.isfinite(seen.force_squares)]
    nearest = float(np.median(distances)) if len(distances) else float("nan")
    rms = float(np.sqrt(squares.mean())) if len(squares) else float("nan")
    largest = max(seen.largest_forces, default=float("nan"))
    energy = max(seen.energies, default=float("nan"))
    found = doubts(nearest=nearest, rms_force=rms, largest_force=largest, energy_per_atom=energy)
    normalizer = ((section.get("transforms") or {}).get("normalizer") or {}).get("forces") or {}
    scale = normalizer.get("stdev", normalizer.get("rmsd"))
    if scale and len(squares) and not 1 / 100 < rms / float(scale) < 100:
        found.append(f"forces of rms {rms:.3g} against normalizer.forces.stdev {scale:.3g}")
    if found:
        text = f"implausible units: {'; '.join(found)}"
        fix = "labels have to be in eV and eV/Angstrom, positions and cell in Angstrom"
        yield Finding(WARNING, where, text, fix)
    elif len(distances):
        forces = f", largest force {largest:.2g} eV/Angstrom" if seen.largest_forces else ""
        text = f"units plausible: nearest neighbours {nearest:.2f} Angstrom{forces}"
        yield Finding(OK, where, text)
