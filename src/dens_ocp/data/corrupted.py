"""Corrupting structures in a program of one's own: ASE's, or batches of PyG."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
import torch
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress

from dens_ocp.data.ase_structures import fixed_atoms, known_result
from dens_ocp.dens.config import DeNSConfig
from dens_ocp.dens.corruption import corrupt as draw
from dens_ocp.dens.corruption import corruption_of, step_generator
from dens_ocp.dens.options import parsed
from dens_ocp.dens.step_plan import StepPlan, attach, rows_of
from dens_ocp.errors import DensError

if TYPE_CHECKING:
    from torch_geometric.data import Batch


@overload
def corrupt(
    structures: Atoms, config: DeNSConfig | None = None, *, seed: int = 0, rank: int = 0,
    step: int = 0, **options: Any,
) -> Atoms: ...  # fmt: skip


@overload
def corrupt(
    structures: Batch, config: DeNSConfig | None = None, *, seed: int = 0, rank: int = 0,
    step: int = 0, **options: Any,
) -> Batch: ...  # fmt: skip


def corrupt(
    structures: Any,
    config: DeNSConfig | None = None,
    *,
    seed: int = 0,
    rank: int = 0,
    step: int = 0,
    **options: Any,
) -> Any:
    """Corrupt atoms as in training (Algorithm 1, lines 7 to 22). The input is not changed.

    Args:
        structures: a structure of ASE, whose fixed atoms are those of its ``FixAtoms`` constraints;
            or a batch of PyG as fairchem's collater makes it, on the CPU, with ``pos`` and
            ``forces`` (N, 3), ``fixed`` and ``batch`` (N,), ``natoms`` (B,).
        config: the options of DeNS. None: their defaults; with p = 1 for a structure of ASE.
        seed, rank, step: the random numbers depend on these only.
        options: options of DeNS that replace those of ``config``: ``sigma=0.1``, ``r=0.5``.

    Returns:
        For a structure of ASE a copy without calculator, with moved atoms and the arrays
        ``corrupted`` (N,) bool, ``noise`` (N, 3) in Angstrom and, where the input has forces,
        ``original_forces`` (N, 3) in eV/Angstrom. For a batch a copy that the models of this
        package train on: see :mod:`dens_ocp.dens.step_plan` for its fields.

    Raises:
        DensError: an unknown option or a value out of bounds; a batch without forces, or one that
            is corrupted already.

    >>> from ase.build import fcc111
    >>> slab = fcc111("Cu", (2, 2, 3), vacuum=8.0)
    >>> noisy = corrupt(slab, sigma=0.1, r=0.5, seed=1)
    >>> moved = np.abs(noisy.positions - slab.positions).max(axis=1) > 0
    >>> bool((moved == noisy.arrays["corrupted"]).all())
    True
    """
    of_ase = isinstance(structures, Atoms)
    given = {} if config is None else config.model_dump()
    default = {"p": 1.0} if of_ase and config is None else {}
    config = parsed(DeNSConfig, default | given | options, "corrupt")
    generator = step_generator(seed, rank, step)
    if of_ase:
        return _of_ase(structures, config, generator)
    return _of_batch(structures, config, generator)


def _of_ase(atoms: Atoms, config: DeNSConfig, generator: torch.Generator) -> Atoms:
    forces = _forces(atoms)
    if forces is None and (config.max_force_norm or config.max_net_force):
        raise DensError(
            "corrupt: the structure has no forces, and max_force_norm and max_net_force look at "
            "them; attach them with ase.calculators.singlepoint.SinglePointCalculator"
        )
    stress = known_result(atoms, "stress")
    if stress is not None and stress.shape == (6,):
        stress = voigt_6_to_full_3x3_stress(stress)
    corruption = draw(
        pos=torch.from_numpy(atoms.positions),
        forces=torch.from_numpy(np.zeros((len(atoms), 3)) if forces is None else forces),
        fixed=torch.from_numpy(fixed_atoms(atoms)),
        batch=torch.zeros(len(atoms), dtype=torch.long),
        natoms=torch.tensor([len(atoms)]),
        stress=None if stress is None else torch.from_numpy(stress),
        config=config,
        generator=generator,
    )
    noisy = atoms.copy()
    noisy.positions += corruption.displacement.numpy()
    noisy.set_array("corrupted", corruption.noise_mask.numpy())
    noisy.set_array("noise", corruption.noise_vec.numpy())
    if forces is not None:
        noisy.set_array("original_forces", forces)
    return noisy


def _of_batch(batch: Batch, config: DeNSConfig, generator: torch.Generator) -> Batch:
    missing = [
        name for name in ("pos", "forces", "fixed", "batch", "natoms") if batch.get(name) is None
    ]
    if missing:
        raise DensError(
            f"corrupt: the batch has no {', '.join(missing)}; make it with fairchem's "
            "AtomsToGraphs(r_forces=True, r_fixed=True, ...) and data_list_collater"
        )
    corruption = corruption_of(batch, config, generator)
    noisy, counted = batch.clone(), batch.fixed == 0
    if config.all_atoms:
        counted = counted | corruption.noise_mask
    plan = StepPlan(
        corruption,
        force_atoms=counted & ~corruption.noise_mask,
        noise_atoms=counted & corruption.noise_mask,
        loss_rows=rows_of(counted),
    )
    attach(noisy, plan)
    return noisy


def _forces(atoms: Atoms) -> np.ndarray | None:
    """Of the calculator, if it has them without a calculation, else of the array ``forces``."""
    forces = known_result(atoms, "forces")
    return atoms.arrays.get("forces") if forces is None else forces
