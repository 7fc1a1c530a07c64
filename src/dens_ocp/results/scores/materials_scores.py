"""Scores of crystals: energy per atom and stress of predictions, and how relaxations ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from fairchem.core.modules.evaluator import Evaluator

from dens_ocp.data.structures import Structure
from dens_ocp.errors import DensError


class CrystalErrors:
    """Mean errors of energy per atom and of stress, those of fairchem's ``Evaluator``, over chunks
    of structures.

    Args:
        with_stress: whether predictions and labels have a stress. Without it there are no scores:
            energies per atom are the measure of crystals.
    """

    def __init__(self, with_stress: bool) -> None:
        self.with_stress = with_stress
        self._evaluator = Evaluator(eval_metrics={"energy": ["per_atom_mae"], "stress": ["mae"]})
        self._metrics: dict[str, Any] = {}

    def add(
        self, structures: list[Structure], energies: np.ndarray, stress: np.ndarray | None
    ) -> None:
        """Some structures.

        Args:
            energies: (S,) predicted, eV. stress: (S, 3, 3) predicted, eV/Angstrom^3.

        Raises:
            DensError: a structure without the label.
        """
        if not self.with_stress:
            return
        for each in structures:
            if each.stress is None:
                raise DensError(
                    f"{each.id} has no stress label, but the first structure has one; remove "
                    "r_stress: True from dataset.a2g_args to score without stress"
                )
        self._metrics = self._evaluator.eval(
            {"energy": _column(energies), "stress": torch.as_tensor(stress, dtype=torch.float64)},
            {
                "energy": _column([each.energy for each in structures]),
                "stress": torch.as_tensor(np.array([each.stress for each in structures])).double(),
                "natoms": torch.tensor([len(each.pos) for each in structures]),
            },
            self._metrics,
        )

    @property
    def scores(self) -> dict[str, float]:
        """By the names of ``S2EFScores``: meV per atom, meV/Angstrom^3; nothing without stress."""
        if not self.with_stress:
            return {}
        return {
            "energy_per_atom_mae_meV": 1000 * self._metrics["energy_per_atom_mae"]["metric"],
            "stress_mae_meV_per_A3": 1000 * self._metrics["stress_mae"]["metric"],
        }


def _column(values: Any) -> torch.Tensor:
    """(S, 1) float64, the shape that fairchem divides by numbers of atoms."""
    return torch.as_tensor(np.asarray(values, np.float64)).view(-1, 1)


@dataclass(frozen=True)
class CellScores:
    """How relaxations of cells ended.

    Attributes:
        structures: their number. failed: those that were given up.
        converged_percent: with every force on atoms and cell below fmax; percent of all.
        mean_steps: mean over those that were not given up; None where all were.
        mean_volume_change_percent: of their cells, percent of the initial volume; likewise.
    """

    structures: int
    failed: int
    converged_percent: float
    mean_steps: float | None
    mean_volume_change_percent: float | None


def cell_scores(summary: Mapping[str, Mapping[str, Any]]) -> CellScores:
    """Scores of what ``summary.json`` says (:mod:`dens_ocp.relaxation.cell_trajectories`)."""
    ended = [each for each in summary.values() if not each["failure"]]

    def mean(name: str) -> float | None:
        return float(np.mean([each[name] for each in ended])) if ended else None

    return CellScores(
        structures=len(summary),
        failed=len(summary) - len(ended),
        converged_percent=100 * sum(each["converged"] for each in ended) / max(len(summary), 1),
        mean_steps=mean("n_steps"),
        mean_volume_change_percent=mean("volume_change_percent"),
    )
