"""Labelled structures from any file that ASE reads: extxyz, trajectories, databases, OUTCAR..."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.io.formats import string2index
from tqdm import tqdm

from dens_ocp.errors import DensError
from dens_ocp.tools.data.frames import Frame, check_frame
from dens_ocp.tools.data.units import Units


def read_frames(
    paths: Sequence[Path],
    units: Units,
    *,
    index: str = ":",
    energy_key: str | None = None,
    forces_key: str | None = None,
    skip_incomplete: bool = False,
    progress: bool = True,
) -> list[Frame]:
    """All frames of the files that can be trained on, in their order.

    Args:
        paths: files of a format that ASE recognises.
        units: of the files; positions and cell too.
        index: which frames of each file, as ASE writes it: ``:`` all, ``::10`` each tenth.
        energy_key: key of ``atoms.info`` with the energy; None: the calculator's energy, which is
            the extrapolation to zero smearing where there is one (as OC20).
        forces_key: key of ``atoms.arrays``; None: the calculator's forces, without constraints
            applied.
        skip_incomplete: leave frames out that lack energy or forces, or that
            :func:`~dens_ocp.tools.data.frames.check_frame` refuses, and print how many.

    Raises:
        DensError: a file that ASE cannot read; frames as above, with their number, unless they
            are left out.
    """
    energy_factor, length_factor, force_factor = units.factors()
    frames: list[Frame] = []
    incomplete: list[str] = []
    for path in paths:
        bar = tqdm(_atoms(path, index), desc=f"read {path.name}", unit="frame",
                   disable=not progress)  # fmt: skip
        for fid, atoms in enumerate(bar):
            where = f"frame {fid} of {path}" + ("" if index == ":" else f" (--index {index})")
            try:
                energy = float(_label(atoms, "energy", energy_key, where)) * energy_factor
                forces = _label(atoms, "forces", forces_key, where) * force_factor
                frame = Frame(_bare(atoms, length_factor), energy, forces, fid, where)
                check_frame(frame)
            except DensError as error:
                incomplete.append(str(error))
            else:
                frames.append(frame)
    if incomplete:
        count = f"{len(incomplete)} of {len(incomplete) + len(frames)} frames"
        if not skip_incomplete:
            raise DensError(
                f"{incomplete[0]} ({count} cannot be trained on; --skip-incomplete leaves them out)"
            )
        print(f"{count} are left out, the first: {incomplete[0]}")
    return frames


def _atoms(path: Path, index: str) -> Iterator[Atoms]:
    if not path.exists():
        raise DensError(f"{path} does not exist; give a file with structures, energies and forces")
    try:
        if path.suffix == ".aselmdb":  # ase.io opens it for writing
            with ase.db.connect(str(path), readonly=True, use_lock_file=False) as database:
                for number in np.atleast_1d(np.array(database.ids)[string2index(index)]).tolist():
                    yield database._get_row(number).toatoms()
            return
        yield from ase.io.iread(str(path), index)
    except Exception as error:  # each format has its own
        raise DensError(
            f"{path} cannot be read by ASE ({type(error).__name__}: {error}); `ase info --formats` "
            "lists what it reads"
        ) from None


def _bare(atoms: Atoms, length: float) -> Atoms:
    """Without calculator, info and arrays; lengths in Angstrom; atoms that may not move in any
    direction as ``FixAtoms`` (other constraints are no business of S2EF)."""
    fixed: set[int] = set()
    for constraint in atoms.constraints:
        held = isinstance(constraint, (FixCartesian, FixScaled)) and np.all(constraint.mask)
        if isinstance(constraint, FixAtoms) or held:
            fixed.update(np.atleast_1d(constraint.index).tolist())
    return Atoms(
        atoms.numbers,
        atoms.positions * length,
        cell=atoms.cell.array * length,
        pbc=atoms.pbc,
        tags=atoms.get_tags(),
        constraint=FixAtoms(sorted(fixed)) if fixed else None,
    )


def _label(atoms: Atoms, what: str, key: str | None, where: str) -> np.ndarray:
    """``energy`` () or ``forces`` (N, 3), float64, in the units of the file."""
    stored = atoms.info if what == "energy" else atoms.arrays
    if key is None:
        ask = atoms.get_potential_energy if what == "energy" else atoms.get_forces
        try:
            return np.asarray(ask(apply_constraint=False), dtype=np.float64)
        except (RuntimeError, PropertyNotImplementedError):
            missing = what
    elif key in stored:
        try:
            label = np.asarray(stored[key], dtype=np.float64)
            return label.reshape(()) if what == "energy" else label
        except (TypeError, ValueError):
            wrong = f"{stored[key]!r} is not one number" if what == "energy" else "no numbers"
            raise DensError(f"{where}: --{what}-key {key}: {wrong}; name another") from None
    else:
        missing = f"{'info' if what == 'energy' else 'array'} {key!r}"
    names = ", ".join(name for name in stored if name not in ("numbers", "positions"))
    hint = f"--{what}-key NAME names it; the frame has {names}" if names else (
        "training with DeNS needs energies and forces of every frame"
    )  # fmt: skip
    raise DensError(f"{where} has no {missing}: {hint}")
