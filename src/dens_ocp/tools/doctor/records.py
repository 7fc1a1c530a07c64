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

RANDOM_RECORDS = 8
_MOST_SHOWN = 3
_MOST_KEPT = 16


@dataclass
class Seen:
    """What the records that were read look like."""

    read: int = 0
    md: int = 0
    untagged: int = 0
    all_fixed: int = 0
    natoms: dict[int, int] = field(default_factory=dict)
    largest_force: float = 0.0
    largest_energy: float = 0.0
    force_squares: list[float] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    number_refused: int = 0


def sample(count: int, everything: bool, seed: int = 0) -> list[int] | range:
    """Indices to read: all, or the first, the last and some random ones, in rising order."""
    if everything:
        return range(count)
    drawn = np.random.default_rng(seed).integers(0, count, RANDOM_RECORDS).tolist()
    return sorted({0, count - 1, *drawn})


def look(
    dataset: Any,
    indices: Iterable[int],
    collater: Any,
    where: str,
    progress: bool = False,
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
            _add(seen, index, record)
        except Exception as error:
            seen.number_refused += 1
            if len(seen.refused) < _MOST_SHOWN:
                kind = "" if isinstance(error, DensError) else f"{type(error).__name__}: "
                seen.refused.append(f"index {index}: {kind}{error}")
    return seen


def _add(seen: Seen, index: int, record: Any) -> None:
    if len(seen.kept) < _MOST_KEPT:
        seen.kept.append(record)
    seen.read += 1
    natoms = record.pos.shape[0]
    seen.natoms[index] = natoms
    seen.md += int(bool(getattr(record, "md", 0)))
    seen.untagged += getattr(record, "tags", None) is None
    seen.all_fixed += bool((record.fixed != 0).all())
    forces, energy = getattr(record, "forces", None), getattr(record, "energy", None)
    if forces is not None:
        seen.largest_force = max(seen.largest_force, float(forces.norm(dim=-1).max()))
        seen.force_squares.append(float(forces[record.fixed == 0].square().mean()))
    if energy is not None:
        seen.largest_energy = max(seen.largest_energy, abs(float(energy)) / natoms)
    if len(seen.distances) < 32:
        seen.distances.append(nearest_neighbour(record))


def findings(seen: Seen, total: int, where: str, required: Mapping[str, str], form: str,
             section: Mapping[str, Any]) -> Iterator[Finding]:  # fmt: skip
    """What :func:`look` saw, as findings.

    Args:
        seen: of one data set.
        total: number of its records.
        where, required: as there.
        form: ``format`` of the data set.
        section: its config section, for the normalizer of the forces.
    """
    if seen.refused:
        example = refused(where, DensError(seen.refused[0]))
        yield Finding(
            PROBLEM,
            where,
            f"{seen.number_refused} of {seen.read + seen.number_refused} records read are bad, "
            f"for example {example.text}",
            f"{example.fix} (dens-ocp doctor CONFIG --all finds all of them)",
        )
    labels = f", {' and '.join(required)} finite" if required else ""
    yield Finding(
        OK if seen.read else PROBLEM,
        where,
        f"{total:,} records ({form}); {seen.read:,} read: positions{labels}, fixed there",
        "" if seen.read else "write the LMDB again",
    )
    if seen.all_fixed:
        yield Finding(
            WARNING, where, f"{seen.all_fixed} of {seen.read} records read have no free atom: "
            "they have no force loss, and DeNS leaves them alone"
        )  # fmt: skip
    if seen.untagged:
        yield Finding(
            WARNING, where, f"{seen.untagged} of {seen.read} records read have no tags: "
            "relaxations refuse them, breakdowns of errors by surface and adsorbate lack them"
        )  # fmt: skip
    yield from _units(seen, where, section)


def _units(seen: Seen, where: str, section: Mapping[str, Any]) -> Iterator[Finding]:
    distances = [each for each in seen.distances if np.isfinite(each)]
    squares = [each for each in seen.force_squares if np.isfinite(each)]
    rms = float(np.sqrt(np.mean(squares))) if squares else float("nan")
    found = doubts(
        nearest=float(np.median(distances)) if distances else float("nan"),
        rms_force=rms,
        largest_force=seen.largest_force,
        energy_per_atom=seen.largest_energy,
    )
    normalizer = ((section.get("transforms") or {}).get("normalizer") or {}).get("forces") or {}
    scale = normalizer.get("stdev", normalizer.get("rmsd"))
    if scale and squares:
        if not 1 / 100 < rms / float(scale) < 100:
            found.append(f"forces of rms {rms:.3g} against normalizer.forces.stdev {scale:.3g}")
    if found:
        yield Finding(
            WARNING,
            where,
            "implausible units: " + "; ".join(found),
            "labels have to be in eV and eV/Angstrom, positions and cell in Angstrom",
        )
    elif distances:
        yield Finding(
            OK, where, f"units plausible: nearest neighbours {np.median(distances):.2f} Angstrom"
            + (f", largest force {seen.largest_force:.2g} eV/Angstrom"
               if seen.force_squares else "")
        )  # fmt: skip
