"""fairchem's relaxation of a batch, with whole trajectories; finished ones are read, not redone."""

from __future__ import annotations

import logging
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.calculators.singlepoint import SinglePointCalculator
from fairchem.core.common.relaxation import ml_relaxation
from fairchem.core.common.relaxation.ase_utils import ASE_PROP_RESHAPE, batch_to_atoms
from fairchem.core.common.relaxation.optimizable import ALL_CHANGES, OptimizableBatch
from fairchem.core.common.relaxation.optimizers.lbfgs_torch import LBFGS
from fairchem.core.modules.evaluator import Evaluator

from dens_ocp.data.records.record_ids import system_ids
from dens_ocp.patched import swapped
from dens_ocp.relaxation import trajectories
from dens_ocp.relaxation.unusable_results import Unusable, in_structures


class _Curvatures(deque):
    """1 / (y . s) of each system (B,) by step, 0 where it is not finite: the pair is left out.

    Where the forces of a system did not change (a primitive cell of one atom, a structure at rest,
    one without an edge) fairchem divides by zero (``optimizers/lbfgs_torch.py:161``), and its
    positions are NaN from the next step on.
    """

    def append(self, inverse: torch.Tensor) -> None:
        super().append(torch.where(torch.isfinite(inverse), inverse, 0.0))


class RecordingLBFGS(LBFGS):
    """fairchem's L-BFGS whose trajectories end with the relaxed structure.

    fairchem writes a frame only of systems that still move, and so never the converged one
    (``optimizers/lbfgs_torch.py:202``): a system that is converged at the start leaves an empty
    file. It wraps positions into the cell, which moves them by rounding, and gives a file its
    final name one by one, without waiting for the disk.

    Here every system has its frames while it moves (or the first one only, with
    ``save_full_traj: False``), and then the last: positions as the model saw them, not wrapped,
    with the energy (eV) and forces (eV/Angstrom, zero on fixed atoms) of the last forward.
    """

    def __init__(
        self,
        optimizable_batch: OptimizableBatch,
        traj_dir: Path | None = None,
        traj_names: Any = None,
        **options: Any,
    ) -> None:
        super().__init__(optimizable_batch, **options)  # without a folder it writes nothing
        self.rho = _Curvatures(maxlen=self.memory)
        self._folder = traj_dir
        self._writers: list[Any] = []

    def run(self, fmax: float, steps: int) -> bool:
        if self._folder is None:
            return super().run(fmax, steps)
        names = system_ids(self.optimizable.batch)
        with trajectories.writing(self._folder, names) as self._writers:
            converged = super().run(fmax, steps)
            self._record([True] * len(names))
        return converged

    def step(self, iteration: int) -> None:
        if self.r0 is None:
            # fairchem needs them at the next step, and leaves them out where nothing moves in this
            self.r0 = self.optimizable.get_positions().double()
            self.f0 = self.optimizable.get_forces(apply_constraint=True).double()
        if self._writers and (self.save_full or iteration == 0):
            self._record(self.optimizable.update_mask)
        super().step(iteration)

    def _record(self, chosen: Any) -> None:
        batch = self.optimizable.batch
        frames = batch_to_atoms(batch, wrap_pos=False)
        results = _results_by_system(
            self.optimizable.torch_results, self.optimizable.trainer.output_targets, batch
        )
        for frame, result, writer, mine in zip(frames, results, self._writers, chosen, strict=True):
            if mine:
                frame.calc = SinglePointCalculator(frame, **result)
                writer.write(frame)


def _results_by_system(
    results: dict[str, torch.Tensor], targets: dict[str, Any], batch: Any
) -> list[dict[str, Any]]:
    """What the model says of each system of a batch.

    ``batch_to_atoms`` tells a value per system from one per atom by its length
    (``relaxation/ase_utils.py:66``), and takes forces for the former where the batch has as many
    atoms as systems.

    Args:
        results: by output; (N, ...) or (B, ...).
        targets: the trainer's, with the ``level`` of each output.
        batch: of B systems and N atoms.

    Returns:
        By output: arrays (n, ...), or plain values.
    """
    natoms = batch.natoms.tolist()
    by_output = {}
    for name, value in results.items():
        if targets[name]["level"] == "atom":
            parts = [part.detach().cpu().numpy() for part in torch.split(value, natoms)]
        else:
            shape = ASE_PROP_RESHAPE.get(name, (len(natoms), -1))
            parts = value.reshape(shape).tolist()
            parts = [part[0] if len(part) == 1 else part for part in parts]
        by_output[name] = parts
    return [{name: parts[i] for name, parts in by_output.items()} for i in range(len(natoms))]


def changed_properties(self: OptimizableBatch, batch: Any, tol: float = 0.0) -> list[str]:
    """What moved since the last forward, exactly; takes the place of ``check_state``.

    fairchem compares with a relative tolerance of 1e-5 (``relaxation/optimizable.py:81``, the
    default of ``torch.allclose``), 1e-4 Angstrom at 10 Angstrom: after smaller steps energy and
    forces are those of the structure before, and L-BFGS divides by their difference.
    """
    before = self._cached_batch
    if before is None:
        return sorted(ALL_CHANGES)
    return [
        name for name, value in vars(before).items() if not torch.equal(value, getattr(batch, name))
    ]


def relax_or_read(
    batch: Any,
    model: Any,
    *,
    relax_opt: dict[str, Any],
    unusable: Unusable,
    reuse: bool = True,
    record: bool = True,
    **settings: Any,
) -> Any:
    """fairchem's ``ml_relax``; a batch whose trajectories are all finished is read from them.

    If one of them is missing or damaged, the whole batch is relaxed again, so that what is in one
    batch does not depend on where a run was stopped.

    Args:
        batch: of fairchem's loader. model: the trainer.
        relax_opt: options of L-BFGS, and ``traj_dir``, a Path, if trajectories are wanted.
        unusable: gets the systems, and whether their energy, forces and positions are finite.
        reuse: read finished trajectories. record: write them.
        settings: other arguments of ``ml_relax``.

    Returns:
        The relaxed batch on the trainer's device, with ``energy`` and ``forces``.

    Raises:
        DensError: a finished trajectory is of another system.
    """
    folder = relax_opt.get("traj_dir")
    if folder is not None and reuse:
        finished = _finished(batch, folder)
        if finished is not None:
            logging.info("Already finished: %s", ", ".join(system_ids(batch)))
            unusable.add(system_ids(batch), [False] * len(finished))
            return _with_results(batch.to(model.device), finished)
    if not record:
        relax_opt = {name: value for name, value in relax_opt.items() if name != "traj_dir"}
    with (
        swapped(ml_relaxation, "LBFGS", RecordingLBFGS),
        swapped(OptimizableBatch, "check_state", changed_properties),
    ):
        # fairchem writes into relax_opt
        relaxed = ml_relaxation.ml_relax(
            batch=batch, model=model, relax_opt=dict(relax_opt), **settings
        )
    atoms = torch.isfinite(relaxed.pos).all(1) & torch.isfinite(relaxed.forces).all(1)
    systems = torch.isfinite(relaxed.energy.view(len(relaxed.natoms), -1)).all(1)
    unusable.add(system_ids(relaxed), (in_structures(~atoms, relaxed) | ~systems).tolist())
    return relaxed


def _finished(batch: Any, folder: Path) -> list[trajectories.Finished] | None:
    """The trajectories of all systems of a batch, or None if one is not finished."""
    natoms = batch.natoms.tolist()
    found = []
    for name, numbers, pos in zip(
        system_ids(batch),
        torch.split(batch.atomic_numbers.cpu(), natoms),
        torch.split(batch.pos.cpu(), natoms),
        strict=True,
    ):
        finished = trajectories.read_of(folder, name, numbers.numpy(), pos.numpy())
        if finished is None:
            return None
        found.append(finished)
    return found


def _with_results(batch: Any, finished: list[trajectories.Finished]) -> Any:
    """The batch with positions, cells, energies and forces of the relaxed structures.

    Trajectories hold float64, so the model's float32 come back as they were.
    """

    def like(reference: torch.Tensor, values: Any) -> torch.Tensor:
        return torch.as_tensor(values).to(reference)

    batch.cell = like(batch.cell, np.stack([each.relaxed.cell.array for each in finished]))
    batch.energy = like(
        batch.pos, [float(each.relaxed.calc.results["energy"]) for each in finished]
    )
    batch.forces = like(
        batch.pos, np.concatenate([each.relaxed.calc.results["forces"] for each in finished])
    )
    batch.pos = like(batch.pos, np.concatenate([each.relaxed.positions for each in finished]))
    return batch


# ---- metrics -------------------------------------------------------------------------------------


class RelaxationEvaluator(Evaluator):
    """fairchem's evaluator, with energies of one shape.

    ``run_relaxations`` compares the model's energies (B, 1) with labels (B,)
    (``trainers/ocp_trainer.py:643``); their difference is (B, B), so each metric compares every
    system with every label, and depends on the batch size.

    Args:
        task: ``is2re`` or ``is2rs``. kept: gets the metrics so far under ``task``.
    """

    def __init__(self, kept: dict[str, Any], task: str) -> None:
        super().__init__(task=task)
        self.kept = kept

    def eval(
        self,
        prediction: dict[str, torch.Tensor],
        target: dict[str, torch.Tensor],
        prev_metrics: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        flat = ({**each, "energy": each["energy"].view(-1)} for each in (prediction, target))
        metrics = self.kept[self.task] = super().eval(*flat, prev_metrics)
        return metrics
