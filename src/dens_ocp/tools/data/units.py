"""Units of energies, lengths and forces, as words; factors from ASE (CODATA 2014)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from dens_ocp.errors import DensError, nearest

ENERGY = ("eV", "meV", "kcal/mol", "kJ/mol", "Hartree", "Rydberg")
LENGTH = ("Angstrom", "Bohr", "nm")

_OTHER_NAMES = {
    "kcalmol": "kcal/mol", "kcal mol-1": "kcal/mol", "kjmol": "kJ/mol",
    "ha": "Hartree", "eh": "Hartree", "a.u.": "Hartree", "au": "Hartree", "ry": "Rydberg",
    "a": "Angstrom", "ang": "Angstrom", "å": "Angstrom", "bohrs": "Bohr", "a0": "Bohr",
}  # fmt: skip


class Units(NamedTuple):
    """Units of a file: one of :data:`ENERGY`, one of :data:`LENGTH`, ``energy/length``."""

    energy: str
    length: str
    force: str

    def factors(self) -> tuple[float, float, float]:
        """eV, Angstrom and eV/Angstrom per unit."""
        return _factor(self.energy), _factor(self.length), _factor(self.force)


def _factor(unit: str) -> float:
    from ase import units  # takes half a second

    factor = 1.0
    for place, word in enumerate(unit.split("/")):
        value = 1e-3 if word == "meV" else getattr(units, word)
        factor = factor / value if place else value
    return factor


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


def _known(word: str, units: Sequence[str], option: str) -> str:
    lowered = word.strip().lower()
    for name in units:
        if name in (_OTHER_NAMES.get(lowered), word.strip()) or name.lower() == lowered:
            return name
    raise DensError(
        f"{option}: {word!r} is not a known unit{nearest(word, units)}; known: {', '.join(units)}"
    )
