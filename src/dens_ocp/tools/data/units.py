"""Units of energies, lengths and forces, as words; factors from ASE (CODATA 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import ase.units

from dens_ocp.errors import DensError, nearest

ENERGY = {
    "eV": 1.0,
    "meV": 1e-3,
    "kcal/mol": ase.units.kcal / ase.units.mol,
    "kJ/mol": ase.units.kJ / ase.units.mol,
    "Hartree": ase.units.Hartree,
    "Rydberg": ase.units.Rydberg,
}
"""eV per unit."""

LENGTH = {"Angstrom": 1.0, "Bohr": ase.units.Bohr, "nm": ase.units.nm}
"""Angstrom per unit."""

_OTHER_NAMES = {
    "ev": "eV", "mev": "meV", "kcalmol": "kcal/mol", "kcal mol-1": "kcal/mol", "kjmol": "kJ/mol",
    "ha": "Hartree", "eh": "Hartree", "a.u.": "Hartree", "au": "Hartree", "ry": "Rydberg",
    "a": "Angstrom", "ang": "Angstrom", "å": "Angstrom", "bohrs": "Bohr", "a0": "Bohr",
}  # fmt: skip


@dataclass(frozen=True)
class Units:
    """Units of a file; :attr:`energy_factor` and the others turn its numbers into eV and Angstrom.

    Attributes:
        energy: a key of :data:`ENERGY`.
        length: a key of :data:`LENGTH`.
        force: ``energy/length``.
    """

    energy: str
    length: str
    force: str

    @property
    def energy_factor(self) -> float:
        """eV per unit of energy."""
        return ENERGY[self.energy]

    @property
    def length_factor(self) -> float:
        """Angstrom per unit of length."""
        return LENGTH[self.length]

    @property
    def force_factor(self) -> float:
        """eV/Angstrom per unit of force."""
        energy, _, length = self.force.rpartition("/")
        return ENERGY[energy] / LENGTH[length]


def read_units(energy: str, length: str, force: str | None) -> Units:
    """Units from words, in any case, short names too; a force without a unit has energy/length.

    Raises:
        DensError: an unknown word.
    """
    energy = _known(energy, ENERGY, "--energy-unit")
    length = _known(length, LENGTH, "--length-unit")
    if force is None:
        return Units(energy, length, f"{energy}/{length}")
    first, slash, second = force.rpartition("/")
    if not slash:
        raise DensError(
            f"--force-unit: {force!r} is not a unit of force; write energy/length, for example "
            "kcal/mol/Angstrom or Hartree/Bohr"
        )
    named = (_known(first, ENERGY, "--force-unit"), _known(second, LENGTH, "--force-unit"))
    return Units(energy, length, "/".join(named))


def _known(word: str, table: dict[str, float], option: str) -> str:
    lowered = word.strip().lower()
    names = {name.lower(): name for name in table} | {
        short: name for short, name in _OTHER_NAMES.items() if name in table
    }
    if lowered not in names:
        raise DensError(
            f"{option}: {word!r} is not a unit known here{nearest(word, table)}; known: "
            f"{', '.join(table)}"
        )
    return names[lowered]
