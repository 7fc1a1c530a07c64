"""Labelled structures from any file that ASE reads: extxyz, trajectories, databases, OUTCAR..."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.db
import ase.io
import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.constraints import FixAtoms, FixCartesian, FixScaled
from ase.io.extxyz import key_val_str_to_dict
from ase.io.formats import string2index
from tqdm import tqdm

from dens_ocp.errors import DensError
from dens_ocp.tools.data.frames import Frame, check_frame
from dens_ocp.tools.data.units import Units

_DATABASES = (".aselmdb", ".db", ".json")
_XYZ = re.compile(r"\.(ext)?xyz(\.\w+)?$")
_SIX = re.compile(r"""\bstress=["']\s*([^"'\s]+(?:\s+[^"'\s]+){5})\s*["']""")


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
        bar = tqdm(atoms_of(path, index), desc=f"read {path.name}", unit="frame",
                   disable=not progress)  # fmt: skip
        for fid, atoms in enumerate(bar):
            where = f"frame {fid} of {path}" + ("" if index == ":" else f" (--index {index})")
            try:
                energy = float(label(atoms, "energy", energy_key, where)) * energy_factor
                forces = label(atoms, "forces", forces_key, where) * force_factor
                frame = Frame(bare(atoms, length_factor), energy, forces, fid, where)
                check_frame(frame)
            except DensError as error:
                incomplete.append(str(error))
            else:
                frames.append(frame)
    if incomplete:
        count = f"{len(incomplete)} of {len(incomplete) + len(frames)} frames"
        if not skip_incomplete:
            raise DensError(
                f"{incomplete[0]} ({count} are not usable for training; --skip-incomplete leaves "
                "them out)"
            )
        print(f"{count} are left out; the first: {incomplete[0]}")
    return frames


def atoms_of(path: Path, index: str = ":") -> Iterator[Atoms]:
    """The structures of a file, one by one. Those of a database of ASE's have the row's key-value
    pairs and data in ``info``.

    Raises:
        DensError: no such file, or ASE cannot read it.
    """
    if not path.exists():
        raise DensError(f"{path} does not exist; give a file with structures, energies and forces")
    try:
        if path.suffix in _DATABASES:
            yield from _rows(path, index)
        else:
            more = {"properties_parser": _properties} if _XYZ.search(path.name) else {}
            yield from ase.io.iread(str(path), index, **more)
    except Exception as error:  # each format has its own
        raise DensError(
            f"{path} cannot be read by ASE ({type(error).__name__}: {error}); `ase info "
            "--formats` lists the formats that it reads"
        ) from None


def _properties(line: str) -> dict[str, Any]:
    """ASE's parser of the second line of a frame, which refuses a ``stress`` of 6 numbers."""

    def nine(found: re.Match[str]) -> str:
        xx, yy, zz, yz, xz, xy = found[1].split()
        return f'stress="{xx} {xy} {xz} {xy} {yy} {yz} {xz} {yz} {zz}"'

    return key_val_str_to_dict(_SIX.sub(nine, line))


def _rows(path: Path, index: str) -> Iterator[Atoms]:
    more = {"readonly": True} if path.suffix == ".aselmdb" else {}
    with ase.db.connect(str(path), use_lock_file=False, **more) as database:
        chosen = string2index(index)
        if isinstance(chosen, int):
            chosen = slice(chosen, chosen + 1 or None)
        numbers = range(database.count())[chosen]
        for number, row in enumerate(database.select()):
            if number in numbers:
                atoms = row.toatoms()
                atoms.info |= {**row.key_value_pairs, **(row.data or {})}
                yield atoms


def bare(atoms: Atoms, length: float) -> Atoms:
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


def label(atoms: Atoms, what: str, key: str | None, where: str) -> np.ndarray:
    """``energy`` () or ``forces`` (N, 3), float64, in the units of the file.

    Args:
        key: where it lies: a name of ``atoms.info``, of ``atoms.arrays``, or of what the
            calculator gave; None: the calculator's.
    """
    results = getattr(atoms.calc, "results", {})
    if what == "energy":
        stored = {**results, **atoms.info}
        names = [name for name, value in stored.items() if np.ndim(value) == 0]
    else:
        stored = {**results, **atoms.info, **atoms.arrays}
        names = [name for name, value in stored.items() if np.shape(value) == (len(atoms), 3)]
    if key is None:
        ask = atoms.get_potential_energy if what == "energy" else atoms.get_forces
        try:
            return np.asarray(ask(apply_constraint=False), dtype=np.float64)
        except (RuntimeError, PropertyNotImplementedError):
            missing = what
    elif stored.get(key) is not None:
        try:
            label = np.asarray(stored[key], dtype=np.float64)
            return label.reshape(()) if what == "energy" else label
        except (TypeError, ValueError):
            wrong = (
                f": {stored[key]!r} is not one number"
                if what == "energy"
                else " does not hold numbers"
            )
            raise DensError(f"{where}: --{what}-key {key}{wrong}; give another name") from None
    else:
        missing = f"{what} {key!r}"
    names = [name for name in names if name != "positions"]
    hint = f"give its name with --{what}-key NAME; the frame has {', '.join(names)}" if names else (
        "training with DeNS needs energies and forces of every frame"
    )  # fmt: skip
    raise DensError(f"{where} has no {missing}: {hint}")
