"""MD17 (sGDML) and rMD17 archives: one molecule, arrays of positions, energies, forces."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from dens_ocp.errors import DensError, nearest
from dens_ocp.tools.data.frames import Frame
from dens_ocp.tools.data.units import read_units

_NAMES = {
    "positions": ("R", "coords"),
    "numbers": ("z", "nuclear_charges"),
    "energies": ("E", "energies"),
    "forces": ("F", "forces"),
}  # of MD17 and of rMD17


class NpzFrames(Sequence[Frame]):
    """The frames of an archive, converted to eV and Angstrom one by one.

    Args:
        path: ``.npz`` with the arrays of MD17 (``R`` (S, N, 3), ``z`` (N,), ``E`` (S,) or (S, 1),
            ``F`` (S, N, 3)) or rMD17 (``coords``, ``nuclear_charges``, ``energies``, ``forces``).
        energy_unit, length_unit: None: what the archive says in ``e_unit`` and ``r_unit`` (newer
            sGDML files), else kcal/mol and Angstrom.
        force_unit: None: energy/length.

    Raises:
        DensError: no archive, an array that is missing or has another shape.
    """

    def __init__(
        self,
        path: Path,
        energy_unit: str | None = None,
        length_unit: str | None = None,
        force_unit: str | None = None,
    ) -> None:
        self.path = path
        self._arrays, e_unit, r_unit = _read(path)
        self.units = read_units(energy_unit or e_unit, length_unit or r_unit, force_unit)
        self._factors = self.units.factors()

    def __len__(self) -> int:
        return len(self._arrays["positions"])

    def __getitem__(self, index: int) -> Frame:
        arrays, (energy, length, force) = self._arrays, self._factors
        return Frame(
            Atoms(arrays["numbers"].astype(int), arrays["positions"][index] * length),
            float(arrays["energies"][index].item()) * energy,
            arrays["forces"][index].astype(np.float64) * force,
            index,
            f"frame {index} of {self.path}",
        )


def _read(path: Path) -> tuple[dict[str, np.ndarray], str, str]:
    """Arrays by the keys of :data:`_NAMES`, and the units of energy and length."""
    if not path.is_file():
        raise DensError(f"{path} does not exist; give a .npz file of MD17 or rMD17")
    try:
        with np.load(path, allow_pickle=False) as archive:
            there = archive.files
            named = {
                what: next((name for name in names if name in there), None)
                for what, names in _NAMES.items()
            }
            arrays = {what: archive[name] for what, name in named.items() if name is not None}
            energy = str(archive["e_unit"]) if "e_unit" in there else "kcal/mol"
            length = str(archive["r_unit"]) if "r_unit" in there else "Angstrom"
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, AttributeError, TypeError) as error:
        raise DensError(
            f"{path} cannot be read as a .npz archive ({error}); download it again, or unpack it"
        ) from None
    for what, names in _NAMES.items():
        if what not in arrays:
            raise DensError(
                f"{path} has no {what}: neither {' (MD17) nor '.join(names)} (rMD17); it has "
                f"{', '.join(there)}{nearest(names[0], there)}"
            )
    _check_shapes({what: array.shape for what, array in arrays.items()}, path)
    return arrays, energy, length


def _check_shapes(shapes: dict[str, tuple[int, ...]], path: Path) -> None:
    is_right = len(shapes["positions"]) == 3
    frames, natoms = shapes["positions"][:2] if is_right else (-1, -1)
    for what, shape in (
        ("positions", (frames, natoms, 3)), ("forces", (frames, natoms, 3)), ("numbers", (natoms,)),
    ):  # fmt: skip
        if shapes[what] != shape:
            raise DensError(
                f"{path}: the shapes do not match: "
                + ", ".join(f"{name} {each}" for name, each in shapes.items())
                + f"; {what} should be {shape if is_right else '(frames, atoms, 3)'}"
            )
    if shapes["energies"] not in ((frames,), (frames, 1)):
        raise DensError(
            f"{path}: {frames} frames and energies of shape {shapes['energies']}; expected one "
            "energy per frame"
        )
