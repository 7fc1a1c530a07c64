"""Relaxations of cell and positions with ASE's optimizers and cell filters, several at a time.

fairchem's own relaxation of batches with a cell (``task.relax_cell``) is another one: L-BFGS on a
unit cell filter whose mask is the identity, so that no angle of a cell changes
(``common/relaxation/optimizable.py``, ``OptimizableUnitCellBatch``). The relaxations of Matbench
Discovery are ASE's, one structure after the other. Here each structure has an optimizer of ASE's of
its own, and the structures that still move are put into one forward of the model. The steps are
those of ASE's ``run``, which ``tests/relaxation/test_cell_relaxation.py`` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator
from ase.calculators.singlepoint import SinglePointCalculator
from ase.filters import FrechetCellFilter, UnitCellFilter
from ase.optimize import BFGS, FIRE, LBFGS
from ase.stress import full_3x3_to_voigt_6_stress
from pydantic import Field

from dens_ocp.dens.options import Section, one_of
from dens_ocp.errors import DensError
from dens_ocp.settings.sections.values import Flag, Number, Whole

OPTIMIZERS = {"FIRE": FIRE, "BFGS": BFGS, "LBFGS": LBFGS}
FILTERS = {"FrechetCellFilter": FrechetCellFilter, "UnitCellFilter": UnitCellFilter, "none": None}

Results = dict[str, Any]
"""``energy`` (eV), ``forces`` (n, 3) eV/Angstrom, and ``stress`` (6,) in ASE's (Voigt's) order, in
eV/Angstrom^3 with ASE's sign (positive: the cell wants to shrink)."""
Evaluate = Callable[[Sequence[Atoms]], list[Results]]
"""The results of each of some structures."""


class CellRelaxation(Section):
    """How cells are relaxed (``evaluation.relaxation``). The defaults are those of eqV2 S DeNS in
    Matbench Discovery (``models/eqV2/eqV2-s-dens-mp.yml``: ``ase_optimizer``, ``max_force``,
    ``max_steps``; ``models/eqV2/test_fairchem_discovery.py``: ``cell_filter``)."""

    optimizer: one_of(*OPTIMIZERS) = Field(
        "FIRE", description="optimizer of ASE: FIRE, BFGS or LBFGS"
    )
    cell_filter: one_of(*FILTERS) = Field(
        "FrechetCellFilter",
        description="cell filter of ASE: FrechetCellFilter or UnitCellFilter; none: relax "
        "positions only",
    )
    fmax: Number = Field(
        0.02,
        gt=0,
        examples=[0.02],
        description="a structure is relaxed if every force on atoms and cell is smaller, "
        "eV/Angstrom",
    )
    steps: Whole = Field(500, ge=0, examples=[500], description="largest number of steps")
    batch_size: Whole = Field(
        16, ge=1, examples=[16], description="number of structures that are relaxed together"
    )
    shards: Whole = Field(
        1,
        ge=1,
        examples=[1],
        description="number of parts into which each data set is divided; each part is a run",
    )
    save_full_traj: Flag = Field(
        False, description="write all frames; False: the first and the last frame"
    )

    @property
    def moves_cells(self) -> bool:
        return FILTERS[self.cell_filter] is not None


class Relaxation:
    """One structure on its way.

    Attributes:
        atoms: as it is now; after :func:`relax` with a calculator that holds its energy (eV),
            forces (eV/Angstrom) and, where the cell moves, stress (eV/Angstrom^3), or without one
            if no results were finite.
        frames: the first and the last structure, or all with ``save_full_traj``.
        steps: that were taken. converged: every force on atoms and cell is below ``fmax``.
        failure: why it was given up, or an empty string.
    """

    def __init__(self, atoms: Atoms, settings: CellRelaxation) -> None:
        self.settings = settings
        self.atoms = atoms.copy()
        self.atoms.info = {}
        self.frames: list[Atoms] = []
        self.steps = 0
        self.converged = False
        self.failure = ""
        cell_filter = FILTERS[settings.cell_filter]
        self._moved = self.atoms if cell_filter is None else cell_filter(self.atoms)
        self._optimizer = OPTIMIZERS[settings.optimizer](self._moved, logfile=None)
        self._last: Atoms | None = None

    @property
    def ended(self) -> bool:
        return self.converged or bool(self.failure)

    def look(self, results: Results | None) -> None:
        """Take the results of the structure as it is; None: the device has too little memory."""
        if results is None:
            return self._give_up("it does not fit into the memory of the device")
        if not all(np.isfinite(value).all() for value in results.values()):
            return self._give_up("the model's results are not finite")
        self.atoms.calc = SinglePointCalculator(self.atoms, **results)
        self._last = self.atoms.copy()
        self._last.calc = SinglePointCalculator(self._last, **results)
        if self.settings.save_full_traj or not self.frames:
            self.frames.append(self._last)
        self.converged = self.largest_force < self.settings.fmax

    @property
    def largest_force(self) -> float:
        """The number that ASE compares with ``fmax``, eV/Angstrom: the largest norm among the
        forces on atoms and the three rows that the filter makes of the stress."""
        return float(np.linalg.norm(self._moved.get_forces().reshape(-1, 3), axis=1).max())

    def step(self) -> None:
        """Move atoms and cell once."""
        try:
            self._optimizer.step()
            finite = np.isfinite(self.atoms.positions).all() and np.isfinite(self.atoms.cell).all()
        except (ValueError, np.linalg.LinAlgError) as error:
            return self._give_up(f"the optimizer failed ({error})")
        if not finite or (self.settings.moves_cells and self.atoms.cell.volume == 0):
            return self._give_up("the optimizer gave numbers that are not finite")
        self.steps += 1

    def end(self) -> None:
        """No step follows: the last frame is the one with results."""
        last = self._last or self.atoms.copy()
        self.atoms = last
        if not self.frames or self.frames[-1] is not last:
            self.frames.append(last)
        last.info = {"n_steps": self.steps, "converged": self.converged, "failure": self.failure}

    def _give_up(self, why: str) -> None:
        self.failure = why
        self.converged = False


def relax(
    structures: Sequence[Atoms], evaluate: Evaluate, settings: CellRelaxation
) -> list[Relaxation]:
    """Relax some structures side by side, each until it is converged or has taken all its steps.

    Args:
        structures: not changed. Their constraints hold.
        evaluate: gives the results of the structures that still move, in one forward.
        settings: ``batch_size`` and ``shards`` are the caller's.

    Returns:
        In the order of ``structures``. The last frame has ``n_steps``, ``converged`` and
        ``failure`` in its ``info``.

    Raises:
        DensError: a cell is to move, and there is no stress.
    """
    relaxations = [Relaxation(atoms, settings) for atoms in structures]
    for step in range(settings.steps + 1):
        moving = [each for each in relaxations if not each.ended]
        if not moving:
            break
        found = _fitting(evaluate, [each.atoms for each in moving])
        for each, results in zip(moving, found, strict=True):
            if settings.moves_cells and results is not None and "stress" not in results:
                raise DensError(
                    "evaluation.relaxation.cell_filter: the model gives no stress, which is "
                    "needed to relax cells; use a checkpoint with a stress head, or set "
                    "cell_filter: none"
                )
            each.look(results)
            if not each.ended and step < settings.steps:
                each.step()
    for each in relaxations:
        each.end()
    return relaxations


def _fitting(evaluate: Evaluate, structures: list[Atoms]) -> list[Results | None]:
    """The results; a batch that is too large for the device is halved, as fairchem does."""
    try:
        return list(evaluate(structures))
    except torch.cuda.OutOfMemoryError:
        if len(structures) == 1:
            return [None]
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(structures) // 2
    return _fitting(evaluate, structures[:half]) + _fitting(evaluate, structures[half:])


def of_calculator(calculator: Calculator, stress: bool = True) -> Evaluate:
    """One structure after the other, with any calculator of ASE's.

    Args:
        stress: ask for it too.
    """

    def evaluate(structures: Sequence[Atoms]) -> list[Results]:
        found = []
        for atoms in structures:
            calculator.calculate(atoms, ["energy", "forces", *(["stress"] if stress else [])])
            names = ("energy", "forces", "stress") if stress else ("energy", "forces")
            found.append({name: np.copy(calculator.results[name]) for name in names})
        return found

    return evaluate


def of_model(calculator: Any) -> Evaluate:
    """All structures in one forward of fairchem's ``OCPCalculator``.

    Its own ``calculate`` takes one structure: that of a batch fails (ASE copies the structure, and
    a batch has no ``copy``).
    """
    from fairchem.core.datasets import data_list_collater

    def evaluate(structures: Sequence[Atoms]) -> list[Results]:
        records = [calculator.a2g.convert(atoms) for atoms in structures]
        batch = data_list_collater(records, otf_graph=True)
        outputs = calculator.trainer.predict(batch, per_image=False, disable_tqdm=True)
        arrays = {name: each.detach().double().cpu().numpy() for name, each in outputs.items()}
        ends = np.cumsum([len(atoms) for atoms in structures])[:-1]
        forces = np.split(arrays["forces"], ends)
        found: list[Results] = [
            {"energy": float(energy), "forces": mine}
            for energy, mine in zip(arrays["energy"].reshape(-1), forces, strict=True)
        ]
        if "stress" in arrays:
            for results, stress in zip(found, arrays["stress"].reshape(-1, 3, 3), strict=True):
                results["stress"] = full_3x3_to_voigt_6_stress(stress)
        return found

    return evaluate
