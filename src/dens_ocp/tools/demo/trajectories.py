"""Relaxations and molecular dynamics of adsorbate systems with EMT."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.optimize import BFGS

from dens_ocp.tools.demo.adsorbates import gas_reference, place
from dens_ocp.tools.demo.surfaces import ADSORBATE, SURFACE, Catalyst, clean_energy, cut

RELAXED_FMAX = 0.05  # eV/Angstrom
_MAX_STEPS = 120
_MD_TEMPERATURE = 900.0  # K, as OC20's molecular dynamics
_MD_TIME_STEP = 1.0  # fs


@dataclass(frozen=True)
class System:
    """An adsorbate on a surface, with OC20's system id."""

    sid: int
    catalyst: Catalyst
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
    if not run.run(fmax=RELAXED_FMAX, steps=_MAX_STEPS) or not _adsorbed(atoms):
        return None
    return frames


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


def _adsorbed(atoms: Atoms) -> bool:
    tags = atoms.get_tags()
    height = atoms.positions[tags == ADSORBATE, 2]
    surface = atoms.positions[tags == SURFACE, 2]
    return height.min() > surface.min() - 0.5 and height.min() < surface.max() + 3.0


def spread(frames: list[Frame], number: int) -> list[Frame]:
    """At most ``number`` frames of a trajectory, first and last among them, denser at its start,
    where a relaxation takes its large steps and forces are large."""
    steps = np.linspace(0, 1, min(number, len(frames))) ** 2 * (len(frames) - 1)
    chosen = steps.round().astype(int)
    for position in range(1, len(chosen)):  # no frame twice
        chosen[position] = max(chosen[position], chosen[position - 1] + 1)
    return [frames[index] for index in chosen]
