"""A checkpoint as a calculator of ASE."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from dens_ocp.checkpoints import checkpoint_files

if TYPE_CHECKING:
    from ase.calculators.calculator import Calculator


def load(checkpoint: str | os.PathLike[str], *, cpu: bool | None = None) -> Calculator:
    """The model of a checkpoint as a calculator of ASE: fairchem's ``OCPCalculator``.

    Args:
        checkpoint: a file that training wrote (``checkpoint.pt``, ``best_checkpoint.pt``), an
            exported one, or any other of fairchem-core 1.10.0. Averaged weights are used where the
            file has them.
        cpu: compute on the CPU. None: where there is no GPU.

    Returns:
        The calculator. It computes ``energy`` (eV) and ``forces`` (eV/Angstrom, of all atoms), and
        ``stress`` (eV/Angstrom^3) for models that predict it. Calls with the same structure give
        the same numbers (:mod:`dens_ocp.relaxation.repeatable_frames`).

    Raises:
        DensError: the file does not exist, is damaged, is no checkpoint of fairchem, or could run
            code while it is loaded.

    Example::

        import dens_ocp

        atoms.calc = dens_ocp.load("checkpoints/RUN/best_checkpoint.pt")
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    """
    from fairchem.core import OCPCalculator

    checkpoint_files.read(checkpoint, "cpu", mmap=True)  # only to refuse a bad one
    with _quiet():
        return OCPCalculator(
            checkpoint_path=os.fspath(checkpoint),
            cpu=not torch.cuda.is_available() if cpu is None else cpu,
            seed=0,
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """fairchem logs the whole config, and torch warns of what :func:`load` has already refused."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are using `torch.load`", FutureWarning)
            yield
    finally:
        logging.disable(before)
