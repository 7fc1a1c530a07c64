"""3D views of the report: corrupted structures, and some relaxations."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.io import Trajectory

from dens_ocp.data.structures import Structure
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.step_plan import Corruption
from dens_ocp.errors import DensError
from dens_ocp.results.report.figures.corruption_gallery import (
    ALL_ATOMS,
    as_in_training,
    corrupted,
    sigmas_around,
)
from dens_ocp.results.report.relaxation_files import Relaxations, Trace
from dens_ocp.results.report.viewer.fragments import fragment
from dens_ocp.results.report.viewer.scenes import (
    MAX_ATOMS,
    Scene,
    stretch_of,
    structure_scene,
    trajectory_scene,
)

VIEWED = 8
"""At most this many relaxations are in the page, and at most two of a split."""


def corruption_view(shown: Structure, config: DeNSConfig, seed: int = 0) -> str | None:
    """HTML of the structures of the picture: as in training, all atoms corrupted, the original.

    Args:
        shown: a structure with forces.
        config: the run's options.
        seed: of the noise.

    Returns:
        None where the structure is too large for the viewer.
    """
    if len(shown.pos) > MAX_ATOMS:
        return None
    sigmas, training = sigmas_around(config), as_in_training(config)
    drawn = {
        f"\u03c3 = {sigma:g} \u00c5, {name}": corrupted(
            shown, options.model_copy(update={"sigma": sigma}), seed
        )
        for name, options in (("as in training", training), ("all atoms", ALL_ATOMS))
        for sigma in sigmas
    }
    in_training = list(drawn.values())[: len(sigmas)]
    stretch = stretch_of(max(float(each.displacement.norm(dim=1).max()) for each in in_training))
    scenes = [
        structure_scene(as_atoms(shown, each), label, stretch) for label, each in drawn.items()
    ]
    scenes.append(structure_scene(as_atoms(shown), "original"))
    # of three noise levels the middle one is the run's
    return fragment(scenes, f"3D view of structure {shown.id}, corrupted", chosen=len(sigmas) // 2)


def relaxation_view(relaxed: Mapping[str, Relaxations]) -> str | None:
    """HTML of some relaxations of each split; None where no trajectory can be shown.

    Args:
        relaxed: by split.
    """
    scenes = []
    each = min(2, max(1, VIEWED // max(1, len(relaxed))))
    for split, done in relaxed.items():
        scenes += [scene for trace in done.traces[:each] if (scene := _of(split, trace))]
    return fragment(scenes[:VIEWED], "3D view of relaxations") if scenes else None


def as_atoms(shown: Structure, corruption: Corruption | None = None) -> Atoms:
    """A structure as ASE's; a corrupted one with the arrays of ``dens_ocp.corrupt``, else with its
    labels."""
    atoms = Atoms(shown.atomic_numbers, shown.pos, cell=shown.cell, pbc=bool(shown.cell.any()))
    if corruption is None:
        atoms.set_constraint(FixAtoms(mask=shown.fixed))
        known = {"energy": shown.energy, "forces": shown.forces}
        known = {name: value for name, value in known.items() if value is not None}
        atoms.calc = SinglePointCalculator(atoms, **known)
        return atoms
    noise = corruption.displacement.numpy()
    atoms.positions += noise
    atoms.set_constraint(FixAtoms(mask=shown.fixed))
    atoms.set_array("corrupted", corruption.noise_mask.numpy())
    atoms.set_array("noise", np.asarray(noise, float))
    atoms.set_array("original_forces", np.asarray(shown.forces, float))
    return atoms


def _of(split: str, trace: Trace) -> Scene | None:
    if trace.path is None:
        return None
    try:
        with Trajectory(trace.path) as file:
            frames = list(file)
        return trajectory_scene(
            frames, f"{split}: {trace.sid}, {frames[0].get_chemical_formula(empirical=True)}"
        )
    except DensError:
        return None
