"""EvalAI submission files, written by fairchem's own script from the results of four splits."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import Trajectory, write
from fairchem.core.scripts import make_submission_file
from torch_geometric.data import Data

from dens_ocp.demo.splits import VALIDATION_SPLITS
from dens_ocp.demo.table import number
from dens_ocp.errors import DensError


def write_s2ef(out: Path, predictions: dict[str, Path]) -> Path:
    """The S2EF submission file.

    Args:
        out: npz to write.
        predictions: fairchem's prediction npz by split (``val_id``, ``val_ood_ads``, ...).

    Raises:
        DensError: a number that is not finite.
    """
    return _write(out, predictions, from_relaxations=False)


def write_is2re(out: Path, trajectories: dict[str, Path]) -> Path:
    """The IS2RE submission file from folders of relaxation trajectories by split."""
    return _write(out, trajectories, from_relaxations=True)


def _write(out: Path, results: dict[str, Path], from_relaxations: bool) -> Path:
    temporary = out.with_name(f".{out.stem}.npz")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        make_submission_file.main(
            argparse.Namespace(
                **{split.removeprefix("val_"): str(results[split]) for split in VALIDATION_SPLITS},
                out_path=str(temporary),
                is2re_relaxations=from_relaxations,
                hybrid=False,
                dataset="OC20",
            )
        )
    with np.load(temporary) as written:
        for name in written.files:
            if not name.endswith("_ids") and not np.isfinite(written[name]).all():
                raise DensError(f"submission {out}: {name} holds numbers that are not finite")
    temporary.replace(out)
    return out


def complete_trajectories(
    folder: Path, records: Sequence[Data], initial_energies: dict[str, float]
) -> None:
    """Write what fairchem leaves out: a system that counts as relaxed at the start gets an empty
    trajectory file, which its submission script cannot read.

    Args:
        folder: trajectories by sid.
        records: IS2RE records of the systems.
        initial_energies: predicted energy of the initial structures by sid, eV.
    """
    for record in records:
        sid = str(number(record.sid))
        path = folder / f"{sid}.traj"
        with Trajectory(path) as frames:
            if len(frames) > 0:
                continue
        atoms = Atoms(record.atomic_numbers, record.pos, cell=record.cell[0], pbc=True)
        atoms.calc = SinglePointCalculator(atoms, energy=initial_energies[sid])
        write(path, atoms)
