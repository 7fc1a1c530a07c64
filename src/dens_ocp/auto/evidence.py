"""What a training set says: forces, distances, displacements, numbers. Read from a sample."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.geometry import find_mic

from dens_ocp.data.records.plausible_units import nearest_neighbour
from dens_ocp.errors import DensError

_WINDOWS, _WINDOW = 128, 8
_DISTANCES = 64  # structures whose distances are looked at
_PAIRS = 256  # of all systems together, but at least _PAIRS_OF_EACH
_PAIRS_OF_EACH = 8


@dataclass(frozen=True)
class Evidence:
    """Of a training set.

    Attributes:
        records: number of records in it.
        read: how many of them were read.
        free_atoms: of a structure, median.
        nearest: distance to the nearest neighbour, Angstrom; median over atoms, then structures.
        force_rms: root mean square of force components on free atoms, eV/Angstrom.
        displacement: root mean square over pairs of structures of one system and their free atoms,
            per coordinate and divided by sqrt(2), Angstrom: the standard deviation of a coordinate
            about its mean, if the structures are independent. None: no system was read twice.
        pairs: number of these pairs.
        energy_deviation: standard deviation of the energies, eV; None: there are none.
    """

    records: int
    read: int
    free_atoms: float
    nearest: float
    force_rms: float
    displacement: float | None
    pairs: int
    energy_deviation: float | None = None


def sample(records: int) -> list[int]:
    """Indices to read: all of a small set, else windows of neighbouring records, evenly spaced.

    >>> sample(3)
    [0, 1, 2]
    """
    if records <= _WINDOWS * _WINDOW:
        return list(range(records))
    starts = np.linspace(0, records - _WINDOW, _WINDOWS).astype(int)
    return sorted({int(start) + step for start in starts for step in range(_WINDOW)})


def observe(dataset: Any, where: str = "dataset.train") -> Evidence:
    """Read a sample of the records. No random numbers: the same data set gives the same.

    Args:
        dataset: records with ``pos``, ``fixed``, ``atomic_numbers``, ``forces`` (labels after
            ``key_mapping``), perhaps ``cell`` and ``sid``.
        where: for messages.

    Raises:
        DensError: no records, no forces, forces that are not finite or all zero, no free atoms, no
            structure with two atoms.
    """
    if len(dataset) == 0:
        raise DensError(f"dens: auto: {where} has no records; give sigma, p, r and coefficient")
    records = [dataset[index] for index in sample(len(dataset))]
    forces, free_atoms = [], []
    for record in records:
        if getattr(record, "forces", None) is None:
            raise DensError(
                f"dens: auto: a record of {where} (sid {getattr(record, 'sid', None)}) has no "
                "forces, which are needed to pick sigma and coefficient, and to train with DeNS; "
                "add forces to the data"
            )
        free = np.asarray(record.fixed) == 0
        free_atoms.append(int(free.sum()))
        forces.append(np.asarray(record.forces, dtype=np.float64)[free])
    squares = np.concatenate(forces) ** 2
    force_rms = float(np.sqrt(squares.mean())) if squares.size else float("nan")
    if not np.isfinite(force_rms) or force_rms == 0:
        what = "no free atoms" if not squares.size else f"forces with rms {force_rms:g} eV/Angstrom"
        raise DensError(
            f"dens: auto: the {len(records)} records read of {where} have {what}; check the data "
            "(dens-ocp doctor), or give sigma, p, r and coefficient"
        )
    step = max(1, len(records) // _DISTANCES)
    distances = np.array([nearest_neighbour(record) for record in records[::step]])
    distances = distances[np.isfinite(distances)]
    if not distances.size:
        raise DensError(
            f"dens: auto: {where} has no structure with two atoms, so there is no distance to "
            "choose sigma from; give sigma (Angstrom), p, r and coefficient"
        )
    displacement, pairs = _displacement(records)
    energies = [float(e) for r in records if (e := getattr(r, "energy", None)) is not None]
    return Evidence(
        records=len(dataset),
        read=len(records),
        free_atoms=float(np.median(free_atoms)),
        nearest=float(np.median(distances)),
        force_rms=force_rms,
        displacement=displacement,
        pairs=pairs,
        energy_deviation=float(np.std(energies)) if len(energies) == len(records) else None,
    )


def _displacement(records: list[Any]) -> tuple[float | None, int]:
    """See :attr:`Evidence.displacement`. A system is what has one ``sid``, if any is read twice;
    else what has the same elements in the same order in the same cell (frames of one MD)."""
    by_sid: dict[Any, list[Any]] = defaultdict(list)
    for record in records:
        by_sid[str(getattr(record, "sid", None))].append(record)
    if all(len(group) == 1 for group in by_sid.values()):
        systems: dict[Any, list[Any]] = defaultdict(list)
        for record in records:
            cell = getattr(record, "cell", None)
            shape = None if cell is None else np.asarray(cell, np.float64).round(2).tobytes()
            systems[np.asarray(record.atomic_numbers).tobytes(), shape].append(record)
    else:
        systems = by_sid
    squares, components, pairs = 0.0, 0, 0
    most = max(_PAIRS_OF_EACH, _PAIRS // len(systems))
    for number, group in enumerate(systems.values()):
        rng = np.random.default_rng(number)
        for _ in range(min(most, len(group) - 1)):
            first, second = (group[i] for i in rng.choice(len(group), 2, replace=False))
            moved = _moved(first, second)
            if moved is not None:
                squares, components = squares + float((moved**2).sum()), components + moved.size
                pairs += 1
    if not components or squares == 0:
        return None, pairs
    return float(np.sqrt(squares / components / 2)), pairs


def _moved(first: Any, second: Any) -> np.ndarray | None:
    """(n, 3) displacement of the free atoms; None if the two are different systems."""
    one, other = (np.asarray(each.pos, dtype=np.float64) for each in (first, second))
    if one.shape != other.shape or not np.array_equal(
        np.asarray(first.atomic_numbers), np.asarray(second.atomic_numbers)
    ):
        return None
    free = np.asarray(first.fixed) == 0
    cell = getattr(first, "cell", None)
    if free.all() and (cell is None or _is_empty_box(one, np.asarray(cell).reshape(3, 3))):
        return superposed(one, other) - other
    if cell is None:
        return (one - other)[free]
    return find_mic((one - other)[free], np.asarray(cell, np.float64).reshape(3, 3))[0]


def _is_empty_box(positions: np.ndarray, cell: np.ndarray) -> bool:
    """A molecule in a cube that is at least twice as wide (``dens-ocp data ... --box``)."""
    cube = np.allclose(cell, cell[0, 0] * np.eye(3))
    return bool(cube and np.ptp(positions, axis=0).max() <= 0.5 * cell[0, 0])


def superposed(positions: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Positions (N, 3) moved and turned as a rigid body to lie on others (Kabsch 1976)."""
    centre, target = positions.mean(axis=0), onto.mean(axis=0)
    left, _, right = np.linalg.svd((positions - centre).T @ (onto - target))
    mirror = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return (positions - centre) @ (left @ mirror @ right) + target
