"""Adsorbate systems of each split, their relaxations and molecular dynamics with EMT. Catalysts and
adsorbates of the out-of-domain splits are in no other one."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from dens_ocp.tools.demo.slabs import (
    ADSORBATE,
    FACETS,
    SURFACE,
    clean_energy,
    cut,
    gas_reference,
    place,
)

CATALYSTS = ("Cu4", "Ag4", "Ni4", "Pd4", "Pt4", "Al4", "AuCu3", "Au2Ag2", "AlNi3", "NiPt3")
OOD_CATALYSTS = ("Au4", "PdCu3", "Pt2Cu2", "PdAg3")
ADSORBATES = ("H", "O", "C", "CO", "OH", "NH")
OOD_ADSORBATES = ("N", "NO", "CH")

DOMAINS = {
    "train": (CATALYSTS, ADSORBATES),
    "val_id": (CATALYSTS, ADSORBATES),
    "val_ood_ads": (CATALYSTS, OOD_ADSORBATES),
    "val_ood_cat": (OOD_CATALYSTS, ADSORBATES),
    "val_ood_both": (OOD_CATALYSTS, OOD_ADSORBATES),
}
"""Catalysts and adsorbates of each split. Every element of an out-of-domain split is in train."""

VALIDATION_SPLITS = tuple(name for name in DOMAINS if name != "train")
BOARD_SPLITS = {name.removeprefix("val_"): name for name in VALIDATION_SPLITS}
"""Validation splits by the names of the leaderboard's."""

RELAXED_FMAX = 0.05  # eV/Angstrom
_MAX_STEPS = 120
_MD_TEMPERATURE = 900.0  # K, as OC20's molecular dynamics
_MD_TIME_STEP = 1.0  # fs


@dataclass(frozen=True)
class System:
    """An adsorbate on a surface, with OC20's system id."""

    sid: int
    catalyst: str
    facet: tuple[int, int, int]
    adsorbate: str

    @property
    def reference(self) -> float:
        """Relaxed clean slab plus gas reference, eV: adsorption energy = energy - reference."""
        return clean_energy(self.catalyst, self.facet) + gas_reference(self.adsorbate)


@dataclass(frozen=True)
class Frame:
    """A labelled structure: positions (N, 3) Angstrom, adsorption energy eV, forces (N, 3)
    eV/Angstrom without constraints (fixed atoms have forces too, as in OC20)."""

    atoms: Atoms
    energy: float
    forces: np.ndarray
    fid: int


def candidates(split: str, seed: int) -> list[System]:
    """1000 systems of a split, or a few more, in the order in which they are tried; each pair of
    catalyst and adsorbate comes before any comes twice."""
    pairs = list(product(*DOMAINS[split]))
    number = list(DOMAINS).index(split)
    rng = np.random.default_rng([seed, number])
    systems: list[System] = []
    while len(systems) < 1000:
        for index in rng.permutation(len(pairs)):
            facet = FACETS[rng.integers(len(FACETS))]
            catalyst, adsorbate = pairs[index]
            sid = (number + 1) * 100_000 + len(systems)
            systems.append(System(sid, catalyst, facet, adsorbate))
    return systems


def start(system: System, rng: np.random.Generator, rattle: float = 0.0) -> Atoms:
    """An initial structure; ``rattle``: standard deviation of the free atoms' displacements, A."""
    atoms = place(cut(system.catalyst, system.facet), system.adsorbate, rng)
    free = atoms.get_tags() != 0
    atoms.positions[free] += rattle * rng.standard_normal((int(free.sum()), 3))
    return atoms


def relaxation(system: System, atoms: Atoms) -> list[Frame] | None:
    """All frames of a relaxation of ``atoms``, the last one relaxed.

    Returns:
        None where the relaxation does not end, or the adsorbate desorbs or sinks into the slab:
        such systems are left out, as OC20 leaves out anomalies.
    """
    atoms = atoms.copy()
    atoms.calc = EMT()  # copies of Atoms have no calculator
    frames: list[Frame] = []
    run = BFGS(atoms, logfile=None)
    run.attach(lambda: frames.append(_label(system, atoms, run.nsteps)))
    ended = run.run(fmax=RELAXED_FMAX, steps=_MAX_STEPS)
    tags, heights = atoms.get_tags(), atoms.positions[:, 2]
    lowest, surface = heights[tags == ADSORBATE].min(), heights[tags == SURFACE]
    adsorbed = surface.min() - 0.5 < lowest < surface.max() + 3.0
    return frames if ended and adsorbed else None


def dynamics(system: System, atoms: Atoms, steps: int, every: int, seed: int) -> list[Frame]:
    """Frames of Langevin dynamics at 900 K from a relaxed structure, one every ``every`` steps."""
    atoms = atoms.copy()
    atoms.calc = EMT()  # copies of Atoms have no calculator
    rng = np.random.RandomState(seed)  # what ASE's dynamics take
    MaxwellBoltzmannDistribution(atoms, temperature_K=_MD_TEMPERATURE, rng=rng)
    run = Langevin(
        atoms,
        _MD_TIME_STEP * units.fs,
        temperature_K=_MD_TEMPERATURE,
        friction=0.02 / units.fs,
        fixcm=False,
        rng=rng,
    )
    frames = []
    for number in range(steps // every):
        run.run(every)
        frames.append(_label(system, atoms, (number + 1) * every))
    return frames


def _label(system: System, atoms: Atoms, fid: int) -> Frame:
    energy = atoms.get_potential_energy() - system.reference
    return Frame(atoms.copy(), float(energy), atoms.get_forces(apply_constraint=False), fid)


def spread(frames: list[Frame], number: int) -> list[Frame]:
    """At most ``number`` frames of a trajectory, first and last among them, denser at its start,
    where a relaxation takes its large steps and forces are large."""
    steps = np.linspace(0, 1, min(number, len(frames))) ** 2 * (len(frames) - 1)
    chosen = steps.round().astype(int)
    for position in range(1, len(chosen)):  # no frame twice
        chosen[position] = max(chosen[position], chosen[position - 1] + 1)
    return [frames[index] for index in chosen]
