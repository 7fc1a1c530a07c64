"""Crystals from extended XYZ and other files of ASE's, from its databases, from MPtrj's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ase import Atoms

from dens_ocp.errors import DensError
from dens_ocp.tools.data.ase_source import atoms_of, bare, label
from dens_ocp.tools.data.crystals import mptrj, stress
from dens_ocp.tools.data.crystals.crystal import Crystal, check_crystal
from dens_ocp.tools.data.frames import Frame
from dens_ocp.tools.data.units import Units

MATERIAL_KEYS = ("material_id", "mp_id", "mptrj_traj_id", "mat_id")
"""Keys of ``atoms.info`` that are looked for, in this order, if none is named."""

FORMULA = "reduced formula"
"""What stands for the material where frames have none of these keys."""


class Labels(NamedTuple):
    """Where the labels of a file lie, and how they are written.

    Attributes:
        units: of the file.
        energy, forces, stress: keys; None: what the calculator gave (ASE), or MPtrj's names.
        with_stress: read it; every frame has to have one.
        stress_unit, stress_sign: see :mod:`stress`; ``auto``: kbar and VASP's sign for MPtrj's
            JSON, else the unit of the file's energies and lengths with ASE's sign.
        material: key of ``atoms.info``; None: the first of :data:`MATERIAL_KEYS` in the file's
            first frame, else the reduced formula.
    """

    units: Units
    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    with_stress: bool = True
    stress_unit: str = "auto"
    stress_sign: str = "auto"
    material: str | None = None

    def of(self, path: Path) -> Labels:
        """The same for one file, with MPtrj's names, unit and sign if it is one of MPtrj's."""
        if not mptrj.is_mptrj(path):
            return self
        return self._replace(
            energy=self.energy or mptrj.ENERGY,
            forces=self.forces or mptrj.FORCES,
            stress=self.stress or mptrj.STRESS,
            material=self.material or mptrj.MATERIAL,
            stress_unit="kbar" if self.stress_unit == "auto" else self.stress_unit,
            stress_sign="vasp" if self.stress_sign == "auto" else self.stress_sign,
        )

    def described(self) -> dict[str, str]:
        """Of one file, for people."""
        unit, sign = self.stress_unit, self.stress_sign
        if unit == "auto":
            energy, length, _ = self.units
            unit = f"{energy}/{length}^3"
        energy, forces, stress = (key or "ASE's" for key in (self.energy, self.forces, self.stress))
        words = {"energy": f"{energy} ({self.units.energy})"}
        words["forces"] = f"{forces} ({self.units.force})"
        if self.with_stress:
            shown = "vasp" if sign == "vasp" else "ase"
            words["stress"] = f"{stress} ({unit}, sign of {shown})"
        return words


def read(path: Path, labels: Labels) -> Iterator[Crystal | DensError]:
    """The frames of a file in their order; in the place of one that cannot be trained on, why.

    Args:
        labels: as given; :meth:`Labels.of` is applied.

    Raises:
        DensError: a file that cannot be read.
    """
    labels = labels.of(path)
    is_mptrj = mptrj.is_mptrj(path)
    for number, atoms in enumerate(mptrj.frames(path) if is_mptrj else atoms_of(path)):
        if isinstance(atoms, DensError):
            yield atoms
            continue
        if number == 0 and labels.material is None:
            found = [key for key in MATERIAL_KEYS if key in atoms.info]
            labels = labels._replace(material=found[0] if found else FORMULA)
        name = str(atoms.info[mptrj.FRAME]) if is_mptrj else f"{path.name}:{number}"
        where = f"frame {name if is_mptrj else number} of {path}"
        try:
            crystal = _crystal(atoms, labels, number, name, where)
            check_crystal(crystal)
            yield crystal
        except DensError as error:
            yield error


def _crystal(atoms: Atoms, labels: Labels, number: int, name: str, where: str) -> Crystal:
    energy_factor, length_factor, force_factor = labels.units.factors()
    energy = float(label(atoms, "energy", labels.energy, where)) * energy_factor
    if (labels.energy or "").endswith("per_atom"):
        energy *= len(atoms)
    forces = label(atoms, "forces", labels.forces, where) * force_factor
    frame = Frame(bare(atoms, length_factor), energy, forces, number, where)
    tensor = None
    if labels.with_stress:
        tensor = stress.voigt(_stress(atoms, labels.stress, where), where)
        tensor = tensor * stress.factor(labels.stress_unit, labels.stress_sign, labels.units)
    return Crystal(frame, tensor, _material(atoms, labels.material, where), name)


def _stress(atoms: Atoms, key: str | None, where: str) -> Any:
    """As it stands in the file."""
    results = getattr(atoms.calc, "results", {})
    stored = {**results, **atoms.info}
    value = stored.get(key or "stress")
    if value is None:
        names = ", ".join(
            name for name in stored if name not in ("energy", "free_energy", "forces")
        )
        has = f"; the frame has {names}, choose one with --stress-key NAME" if names else ""
        raise DensError(
            f"{where} has no {'stress' if key is None else f'stress {key!r}'}{has}; give "
            "--no-stress to convert without stress"
        )
    return value


def _material(atoms: Atoms, key: str | None, where: str) -> str:
    if key == FORMULA:
        return str(atoms.symbols.formula.convert("hill").reduce()[0])
    if atoms.info.get(key or "") is None:
        raise DensError(
            f"{where} has no {key!r}, which names the material of a frame; it has "
            f"{', '.join(map(str, atoms.info)) or 'no keys'}; give another name with "
            "--material-key NAME"
        )
    return str(atoms.info[key or ""])
