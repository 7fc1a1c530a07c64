"""Errors of a split of predictions, all together and by what the structures are made of.

Structures are added one by one; what is kept does not grow with their number, but for an energy
each and two bounded samples for pictures. The measures are those of fairchem's ``Evaluator`` on
free atoms: MAE of energies, MAE of force components, mean cosine over atoms, EFwT.
"""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula
from tqdm import tqdm

from dens_ocp.data.structures import Structure, open_structures
from dens_ocp.errors import DensError
from dens_ocp.results.pipeline.folder import EvaluationFolder
from dens_ocp.results.scores.prediction_files import on_free_atoms, read_predictions

ENERGY_WITHIN, FORCE_WITHIN = 0.02, 0.03
"""Thresholds of EFwT: energy error in eV, largest error of a force component in eV/Angstrom."""

KINDS = ("element", "adsorbate", "surface", "tag")
TAGS = {0: "subsurface (tag 0)", 1: "surface (tag 1)", 2: "adsorbate (tag 2)"}
NO_ADSORBATE = "none"
MAGNITUDES = np.r_[0.0, np.geomspace(0.001, 100, 21), np.inf]
"""Edges of bins of the magnitude of the true force, eV/Angstrom."""

SAMPLED = 200_000
_WORST = 10
_UNLABELLED = 1000  # so many structures without labels make a test set


@dataclass
class Group:
    """Sums over structures with something in common.

    Attributes:
        structures: with an energy label. energy_error: sum of their absolute errors, eV.
        atoms: free ones with a force label. force_error: sum over them of the mean absolute error
            of the three components, eV/Angstrom.
    """

    structures: int = 0
    energy_error: float = 0.0
    atoms: int = 0
    force_error: float = 0.0

    @property
    def energy_mae(self) -> float | None:
        """meV; None without structures."""
        return 1000 * self.energy_error / self.structures if self.structures else None

    @property
    def force_mae(self) -> float | None:
        """meV/Angstrom; None without atoms."""
        return 1000 * self.force_error / self.atoms if self.atoms else None


@dataclass(frozen=True)
class Scores:
    """Errors of a split; None where there are no labels.

    Attributes:
        structures: number of structures scored.
        energy_mae: meV. force_mae: meV/Angstrom. force_cosine: mean over free atoms.
        efwt: share of structures, percent, with energy and all force components within the
            thresholds.
        mean_energy_mae: of predicting the split's mean energy, meV.
        zero_force_mae: of predicting no force, meV/Angstrom.
        not_finite, missing: structures left out, as in :class:`Breakdown`.
    """

    structures: int
    energy_mae: float | None
    force_mae: float | None
    force_cosine: float | None
    efwt: float | None
    mean_energy_mae: float | None
    zero_force_mae: float | None
    not_finite: int = 0
    missing: int = 0


def adsorbate_formula(structure: Structure) -> str:
    """Composition of the atoms with tag 2 as chemists write it: ``CHO``, ``NH``, ``OH``, ``H2O``.

    Hill's order with carbon; without, the order of the periodic table with hydrogen last, but for
    water (Hill's would be HN for NH).
    """
    numbers = structure.atomic_numbers[structure.tags == 2]
    if not len(numbers):
        return NO_ADSORBATE
    count = dict(Counter(chemical_symbols[number] for number in numbers))
    hill = "C" in count or count == {"H": 2, "O": 1}
    return Formula.from_dict(count).format("hill" if hill else "periodic")


def surface_elements(structure: Structure) -> str:
    """Elements of the atoms with other tags, in alphabetical order, for example ``Cu-Pt``."""
    numbers = set(structure.atomic_numbers[structure.tags != 2].tolist())
    return "-".join(sorted(chemical_symbols[number] for number in numbers)) or "none"


class Sample:
    """Keeps at most ``limit`` of the rows added, each with the same probability.

    Every row draws a number; those with the smallest are kept.

    Args:
        limit: rows to keep.
        columns: numbers in a row.
        seed: of the choice.
    """

    def __init__(self, limit: int, columns: int, seed: int = 0) -> None:
        self.limit, self.seen = limit, 0
        self._generator = np.random.default_rng(seed)
        self._pieces = [np.zeros((0, 1 + columns))]
        self._held = 0

    def add(self, rows: np.ndarray) -> None:
        """Add ``rows`` (n, columns)."""
        self._pieces.append(np.column_stack([self._generator.random(len(rows)), rows]))
        self.seen += len(rows)
        self._held += len(rows)
        if self._held > 2 * self.limit:
            self._shrink()

    def _shrink(self) -> np.ndarray:
        held = np.concatenate(self._pieces)
        if len(held) > self.limit:
            held = held[np.sort(np.argpartition(held[:, 0], self.limit)[: self.limit])]
        self._pieces, self._held = [held], len(held)
        return held

    @property
    def rows(self) -> np.ndarray:
        """(n, columns) float32, n <= ``limit``, in the order they were added."""
        return self._shrink()[:, 1:].astype(np.float32)


class Breakdown:
    """Errors of one split.

    Attributes:
        groups: by kind (``KINDS``) and key. Energies count for every element that a structure
            has, and for its adsorbate and surface; forces for the element and tag of the atom and
            the adsorbate and surface of its structure.
        magnitude: (bins, 3) over atoms, by ``MAGNITUDES``: number, sum of the lengths of true
            forces, sum of the lengths of force errors; eV/Angstrom.
        energies: sample of (true, predicted), eV. components: of force components,
            eV/Angstrom. lengths: of (length of the true force, length of the error).
        not_finite: structures with NaN or infinity among their predictions; left out.
        missing: structures with labels for which there is no prediction.
        worst: (error in meV, id, adsorbate, surface) of the largest energy errors, largest
            first, at most ten.
    """

    def __init__(self, sampled: int = SAMPLED) -> None:
        self.groups: dict[str, dict[str, Group]] = {kind: defaultdict(Group) for kind in KINDS}
        self.magnitude = np.zeros((len(MAGNITUDES) - 1, 3))
        self.energies = Sample(sampled, 2)
        self.components = Sample(sampled, 2)
        self.lengths = Sample(sampled, 2)
        self.structures = self.not_finite = self.missing = 0
        self._all = Group()
        self._within = self._both = 0
        self._cosine = self._zero_force = 0.0
        self._true_energies = array("d")
        self.worst: list[tuple[float, str, str, str]] = []

    def add(self, true: Structure, energy: float, forces: np.ndarray | None) -> None:
        """Add a structure and its prediction.

        Args:
            true: with the labels that it has.
            energy: predicted, eV.
            forces: (n, 3) predicted, eV/Angstrom: of free atoms, or of all; or None.

        Raises:
            DensError: the number of forces is neither.
        """
        forces = None if forces is None else on_free_atoms(forces, true)
        if not np.isfinite(energy) or not np.isfinite(0.0 if forces is None else forces).all():
            self.not_finite += 1
            return
        self.structures += 1
        adsorbate, surface = adsorbate_formula(true), surface_elements(true)
        own = [self._all, self.groups["adsorbate"][adsorbate], self.groups["surface"][surface]]
        energy_error = largest = None
        if true.energy is not None:
            energy_error = abs(float(energy) - true.energy)
            self._true_energies.append(true.energy)
            self.energies.add(np.array([[true.energy, energy]]))
            for number in set(true.atomic_numbers.tolist()):
                own.append(self.groups["element"][chemical_symbols[number]])
            for group in own:
                group.structures += 1
                group.energy_error += energy_error
            entry = (1000 * energy_error, true.id, adsorbate, surface)
            self.worst = sorted([*self.worst, entry], reverse=True)[:_WORST]
        if true.forces is not None and forces is not None and len(forces):
            largest = self._add_forces(true, forces, own[:3])
        if energy_error is not None and largest is not None:
            self._both += 1
            self._within += energy_error < ENERGY_WITHIN and largest < FORCE_WITHIN

    def _add_forces(self, true: Structure, forces: np.ndarray, own: list[Group]) -> float:
        labels = true.forces[true.free].astype(np.float64)
        off = np.abs(forces - labels)
        error = off.mean(1)
        for group in own:
            group.atoms += len(error)
            group.force_error += float(error.sum())
        numbers, tags = true.atomic_numbers[true.free], true.tags[true.free]
        for kind, values in (("element", numbers), ("tag", tags)):
            for value in np.unique(values):
                key = chemical_symbols[value] if kind == "element" else TAGS.get(value, str(value))
                group = self.groups[kind][key]
                group.atoms += int((values == value).sum())
                group.force_error += float(error[values == value].sum())
        length, mine = np.linalg.norm(labels, axis=1), np.linalg.norm(forces, axis=1)
        wrong = np.linalg.norm(forces - labels, axis=1)
        # torch.cosine_similarity, which fairchem uses, keeps each length above 1e-8
        product = np.maximum(length, 1e-8) * np.maximum(mine, 1e-8)
        self._cosine += float(((forces * labels).sum(1) / product).sum())
        self._zero_force += float(np.abs(labels).mean(1).sum())
        place = np.digitize(length, MAGNITUDES[1:-1])
        np.add.at(self.magnitude, place, np.stack([np.ones_like(length), length, wrong], 1))
        self.components.add(np.stack([labels.ravel(), forces.ravel()], 1))
        self.lengths.add(np.stack([length, wrong], 1))
        return float(off.max())

    @property
    def has_adsorbates(self) -> bool:
        """Whether any atom has tag 2."""
        return any(name != NO_ADSORBATE for name in self.groups["adsorbate"])

    def scores(self) -> Scores:
        """All together."""
        energies, atoms = np.array(self._true_energies), self._all.atoms
        spread = 1000 * float(np.abs(energies - energies.mean()).mean()) if len(energies) else None
        return Scores(
            structures=self.structures,
            energy_mae=self._all.energy_mae,
            force_mae=self._all.force_mae,
            force_cosine=self._cosine / atoms if atoms else None,
            efwt=100 * self._within / self._both if self._both else None,
            mean_energy_mae=spread,
            zero_force_mae=1000 * self._zero_force / atoms if atoms else None,
            not_finite=self.not_finite,
            missing=self.missing,
        )


def score_split(folder: EvaluationFolder, split: str) -> Breakdown | str:
    """Compare predictions and labels of a split, structure by structure.

    Returns:
        The errors; or why there are none, for the reader of the report.

    Raises:
        DensError: files that are there, but damaged or of different data.
    """
    section = folder.splits[split].get("s2ef")
    if not section:
        return "its evaluation.json names no S2EF data set with labels"
    path = folder.predictions(split)
    if not path.is_file():
        return f"predictions/{split}.npz is missing; dens-ocp evaluate writes it"
    try:
        structures = open_structures(section, f"splits.{split}.s2ef")
    except DensError as error:
        return f"the data set cannot be read here ({error})"
    predictions = read_predictions(path)
    row_of = {name: row for row, name in enumerate(predictions.ids)}
    breakdown, unlabelled, found = Breakdown(), 0, 0
    for true in tqdm(structures, desc=f"errors of {split}", unit="structures", leave=False):
        row = row_of.get(true.id)
        if row is None:
            breakdown.missing += 1
            continue
        found += 1
        if true.energy is None and true.forces is None:
            unlabelled += 1
            if unlabelled >= _UNLABELLED and not breakdown.structures:
                break
            continue
        forces = None if predictions.forces is None else predictions.forces[row]
        breakdown.add(true, float(predictions.energy[row]), forces)
    if breakdown.structures or breakdown.not_finite:
        return breakdown
    if found:
        return "its structures have no labels (a test set)"
    raise DensError(
        f"{path}: none of its {len(row_of)} ids is in {section.get('src')}; are these predictions "
        "of another split?"
    )
