"""MD17 (sGDML) and rMD17 archives: one molecule, arrays of positions, energies, forces."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from dens_ocp.errors import DensError, nearest
from dens_ocp.tools.data.frames import Frame
from dens_ocp.tools.data.units import Units, read_units

NAMES = {
    "positions": ("R", "coords"),
    "numbers": ("z", "nuclear_charges"),
    "energies": ("E", "energies"),
    "forces": ("F", "forces"),
}
"""Keys of MD17 and of rMD17."""

_DEFAULTS = {"e_unit": "kcal/mol", "r_unit": "Angstrom"}  # of MD17 and rMD17


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
        self.path = Path(path)
        arrays = _read(self.path)
        self.units = _units(arrays, energy_unit, length_unit, force_unit)
        found = {what: _array(arrays, what, self.path) for what in NAMES}
        self._positions, self._numbers = found["positions"], found["numbers"]
        self._energies = found["energies"].reshape(len(found["energies"]), -1)
        self._forces = found["forces"]
        _check_shapes(found, self._energies, self.path)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Frame:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        index %= len(self)
        positions = self._positions[index] * self.units.length_factor
        return Frame(
            Atoms(self._numbers.astype(int), positions),
            float(self._energies[index, 0]) * self.units.energy_factor,
            np.asarray(self._forces[index], dtype=np.float64) * self.units.force_factor,
            index,
            f"frame {index} of {self.path}",
        )


def _read(path: Path) -> Mapping[str, np.ndarray]:
    if not path.is_file():
        raise DensError(f"{path} does not exist; give the .npz of MD17 or rMD17")
    try:
        with np.load(path, allow_pickle=False) as archive:
            wanted = {*_DEFAULTS, *(name for names in NAMES.values() for name in names)}
            return {
                name: archive[name] if name in wanted else np.empty(0) for name in archive.files
            }
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, AttributeError, TypeError) as error:
        raise DensError(
            f"{path} cannot be read as a .npz archive ({error}); download it again, or unpack it"
        ) from None


def _array(arrays: Mapping[str, np.ndarray], what: str, path: Path) -> np.ndarray:
    for name in NAMES[what]:
        if name in arrays:
            return arrays[name]
    raise DensError(
        f"{path} has no {what}: neither {' (MD17) nor '.join(NAMES[what])} (rMD17); it has "
        f"{', '.join(arrays)}{nearest(NAMES[what][0], arrays)}"
    )


def _check_shapes(found: Mapping[str, np.ndarray], energies: np.ndarray, path: Path) -> None:
    shapes = {what: array.shape for what, array in found.items()}
    positions = shapes["positions"]
    frames, natoms = (positions[0], positions[1]) if len(positions) == 3 else (-1, -1)
    expected = {
        "positions": (frames, natoms, 3),
        "forces": (frames, natoms, 3),
        "numbers": (natoms,),
    }
    for what, shape in expected.items():
        if shapes[what] != shape:
            raise DensError(
                f"{path}: shapes disagree: "
                + ", ".join(f"{name} {each}" for name, each in shapes.items())
                + f"; {what} should be " + ("(frames, atoms, 3)" if frames < 0 else str(shape))
            )  # fmt: skip
    if energies.shape != (frames, 1):
        raise DensError(
            f"{path}: {frames} frames and energies of shape {shapes['energies']}; expected one each"
        )


def _units(
    arrays: Mapping[str, np.ndarray], energy: str | None, length: str | None, force: str | None
) -> Units:
    said = {name: str(arrays[name]) if name in arrays else word for name, word in _DEFAULTS.items()}
    return read_units(energy or said["e_unit"], length or said["r_unit"], force)
