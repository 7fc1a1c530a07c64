"""Labelled structures from any file that ASE reads: extxyz, trajectories, databases, OUTCAR..."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

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
    frames: list[Frame] = []
    incomplete: list[str] = []
    for path in paths:
        bar = tqdm(_atoms(path, index), desc=f"read {path.name}", unit="frame",
                   disable=not progress)  # fmt: skip
        for fid, atoms in enumerate(bar):
            where = f"frame {fid} of {path}" + ("" if index == ":" else f" (--index {index})")
            try:
                frame = Frame(
                    _bare(atoms, units.length_factor),
                    _energy(atoms, energy_key, where) * units.energy_factor,
                    _forces(atoms, forces_key, where) * units.force_factor,
                    fid,
                    where,
                )
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
                rows = range(len(database.ids))[string2index(index)]
                for number in [rows] if isinstance(rows, int) else rows:
                    yield database._get_row(database.ids[number]).toatoms()
            return
        yield from ase.io.iread(str(path), index)
    except Exception as error:  # each format has its own
        raise DensError(
            f"{path} cannot be read by ASE ({type(error).__name__}: {error}); `ase info --formats` "
            "lists what it reads"
        ) from None


def _bare(atoms: Atoms, length: float) -> Atoms:
    """Without calculator, info and arrays; lengths in Angstrom; fixed atoms as FixAtoms."""
    bare = Atoms(
        atoms.numbers,
        atoms.positions * length,
        cell=atoms.cell.array * length,
        pbc=atoms.pbc,
        tags=atoms.get_tags(),
    )
    fixed = _fixed(atoms)
    if fixed:
        bare.set_constraint(FixAtoms(fixed))
    return bare


def _fixed(atoms: Atoms) -> list[int]:
    """Atoms that may not move in any direction; other constraints are no business of S2EF."""
    fixed: set[int] = set()
    for constraint in atoms.constraints:
        held = isinstance(constraint, (FixCartesian, FixScaled)) and np.all(constraint.mask)
        if isinstance(constraint, FixAtoms) or held:
            fixed.update(np.atleast_1d(constraint.index).tolist())
    return sorted(fixed)


def _energy(atoms: Atoms, key: str | None, where: str) -> float:
    if key is not None:
        if key not in atoms.info:
            raise _missing(where, f"info {key!r}", "--energy-key", atoms.info)
        try:
            return float(np.asarray(atoms.info[key], dtype=np.float64).reshape(()))
        except (TypeError, ValueError):
            raise DensError(
                f"{where}: --energy-key {key}: {atoms.info[key]!r} is not one number; name another"
            ) from None
    try:
        return float(atoms.get_potential_energy(apply_constraint=False))
    except (RuntimeError, PropertyNotImplementedError):
        raise _missing(where, "energy", "--energy-key", atoms.info) from None


def _forces(atoms: Atoms, key: str | None, where: str) -> np.ndarray:
    if key is not None:
        if key not in atoms.arrays:
            raise _missing(where, f"array {key!r}", "--forces-key", atoms.arrays)
        try:
            return np.asarray(atoms.arrays[key], dtype=np.float64)
        except (TypeError, ValueError):
            raise DensError(
                f"{where}: --forces-key {key} holds no numbers; name another array"
            ) from None
    try:
        return np.asarray(atoms.get_forces(apply_constraint=False), dtype=np.float64)
    except (RuntimeError, PropertyNotImplementedError):
        raise _missing(where, "forces", "--forces-key", atoms.arrays) from None


def _missing(where: str, what: str, option: str, there: dict[str, Any]) -> DensError:
    names = [name for name in there if name not in ("numbers", "positions")]
    hint = f"{option} NAME names it; the frame has {', '.join(names)}" if names else (
        "training with DeNS needs energies and forces of every frame"
    )  # fmt: skip
    return DensError(f"{where} has no {what}: {hint}")
